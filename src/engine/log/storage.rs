//! How the log changes its directory: the one place through which every write goes, so that tests
//! can fail, shorten, lose and reorder them. Reading is done on the files directly.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An open file and its name, for messages.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) file: Arc<File>,
    pub(super) path: Arc<Path>,
}

impl Handle {
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }
}

pub(super) trait Storage: Send + Sync + fmt::Debug {
    fn create(&self, path: &Path) -> io::Result<Handle>;
    fn open(&self, path: &Path) -> io::Result<Handle>;
    /// May write less than asked for, like `pwrite`.
    fn write_at(&self, handle: &Handle, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// The file's bytes and length survive power loss.
    fn sync(&self, handle: &Handle) -> io::Result<()>;
    fn set_len(&self, handle: &Handle, len: u64) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names made, changed or removed in the directory survive power loss.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// Writes everything, however often the storage writes only a part.
pub(super) fn write_all_at(
    storage: &dyn Storage,
    handle: &Handle,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match storage.write_at(handle, bytes, offset) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts a small file in the place of an older one: after any crash one of the two is there, whole.
pub(super) fn replace_file(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = PathBuf::from(path);
    fresh.set_extension("new");
    match storage.remove(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let handle = storage.create(&fresh)?;
    write_all_at(storage, &handle, bytes, 0)?;
    storage.sync(&handle)?;
    storage.rename(&fresh, path)?;
    storage.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The real thing.
#[derive(Debug)]
pub(super) struct Disk;

fn handle(file: File, path: &Path) -> Handle {
    Handle { file: Arc::new(file), path: path.into() }
}

impl Storage for Disk {
    fn create(&self, path: &Path) -> io::Result<Handle> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(handle(file, path))
    }

    fn open(&self, path: &Path) -> io::Result<Handle> {
        Ok(handle(OpenOptions::new().read(true).write(true).open(path)?, path))
    }

    fn write_at(&self, handle: &Handle, bytes: &[u8], offset: u64) -> io::Result<usize> {
        handle.file.write_at(bytes, offset)
    }

    fn sync(&self, handle: &Handle) -> io::Result<()> {
        handle.file.sync_data()
    }

    fn set_len(&self, handle: &Handle, len: u64) -> io::Result<()> {
        handle.file.set_len(len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}
