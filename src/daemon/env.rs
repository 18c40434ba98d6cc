//! The environment, as an argument: the process's own, and the `.env` file below it.

use std::{collections::HashMap, io, path::Path};

/// Where settings come from beside the command line.
pub(crate) trait Env {
    /// The first of these names that is set and not empty, and its value.
    fn first<'a>(&self, names: &[&'a str]) -> Option<(&'a str, String)>;
}

/// The process's environment over the contents of a `.env` file.
///
/// Any of a setting's names in the environment wins over all of them in the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    layers: Vec<HashMap<String, String>>,
}

impl Layers {
    /// Layers in the order in which they win.
    pub(crate) fn new(layers: impl IntoIterator<Item = HashMap<String, String>>) -> Self {
        Self { layers: layers.into_iter().collect() }
    }

    /// The process's environment, and the file if there is one.
    pub(crate) fn load(file: &Path) -> Result<Self, EnvFileError> {
        // Variables that are not UTF-8 are none of ours.
        let process = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(Self::new([process, read_file(file)?]))
    }
}

impl Env for Layers {
    fn first<'a>(&self, names: &[&'a str]) -> Option<(&'a str, String)> {
        self.layers.iter().find_map(|layer| {
            names.iter().find_map(|name| {
                let value = layer.get(*name).filter(|value| !value.trim().is_empty())?;
                Some((*name, value.clone()))
            })
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub(crate) struct EnvFileError {
    path: String,
    problem: String,
}

fn read_file(path: &Path) -> Result<HashMap<String, String>, EnvFileError> {
    let fault = |problem: String| EnvFileError { path: path.display().to_string(), problem };
    match dotenvy::from_path_iter(path) {
        Ok(pairs) => pairs
            .collect::<Result<_, _>>()
            // The error's own text shows the line, which may hold a secret.
            .map_err(|_error| fault("a line is not of the form NAME=value".into())),
        Err(dotenvy::Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(HashMap::new())
        }
        Err(error) => Err(fault(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn environment_wins_over_file_and_first_name_over_second() {
        let env =
            Layers::new([layer(&[("B", "env"), ("E", "")]), layer(&[("A", "file"), ("E", "f")])]);
        assert_eq!(env.first(&["A", "B"]), Some(("B", "env".into())));
        assert_eq!(env.first(&["A"]), Some(("A", "file".into())));
        assert_eq!(env.first(&["E"]), Some(("E", "f".into())));
        assert_eq!(env.first(&["X"]), None);
    }

    #[test]
    fn files_are_read_and_bad_lines_told_without_their_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".env");
        assert!(read_file(&path).unwrap().is_empty());
        std::fs::write(&path, "# comment\nRELAY_ADMIN_KEY=\"a b\"\nexport DATA_DIR=/x\n").unwrap();
        let file = read_file(&path).unwrap();
        assert_eq!(file["RELAY_ADMIN_KEY"], "a b");
        assert_eq!(file["DATA_DIR"], "/x");
        std::fs::write(&path, "secret stuff\n").unwrap();
        let error = read_file(&path).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
