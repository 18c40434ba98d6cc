//! A PostgreSQL server of the test's own, on a Unix socket in a temporary folder.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio_postgres::{NoTls, Row};

use super::eventually;

pub struct Postgres {
    binaries: PathBuf,
    directory: TempDir,
    server: Option<Child>,
    /// Where it takes TLS, if it does.
    tls_port: Option<u16>,
}

impl Postgres {
    /// `None`: PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let mut postgres = Self::prepare()?;
        postgres.launch();
        Some(postgres)
    }

    /// An empty cluster that is not running yet. `None`: PostgreSQL is not installed.
    pub fn prepare() -> Option<Self> {
        let binaries = find_binaries()?;
        let directory = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        if let Some((uid, gid)) = servant() {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let postgres = Self { binaries, directory, server: None, tls_port: None };
        let made = postgres
            .command("initdb")
            .args(["--auth=trust", "--username=relayered", "--no-sync", "--encoding=UTF8", "-D"])
            .arg(postgres.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(postgres)
    }

    /// For `--db-url`.
    pub fn url(&self) -> String {
        let socket = self.directory.path().display().to_string().replace('/', "%2F");
        let port = self.tls_port.unwrap_or(5432);
        format!("postgres://relayered@{socket}:{port}/postgres")
    }

    /// From its next launch on it listens on a loopback port, for TLS alone, as `web.relay-test.net`.
    /// Returns the port.
    pub fn listen_with_tls(&mut self) -> u16 {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
        for (from, to, label) in [
            ("leaf.der", "server.crt", "CERTIFICATE"),
            ("leaf.key.der", "server.key", "PRIVATE KEY"),
            ("ca.der", "ca.pem", "CERTIFICATE"),
        ] {
            let body = data_encoding::BASE64.encode(&fs::read(data.join(from)).unwrap());
            let path = self.directory.path().join(to);
            fs::write(&path, format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"))
                .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((uid, gid)) = servant() {
                std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
            }
        }
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
        fs::write(self.data().join("pg_hba.conf"), rules).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        self.tls_port = Some(port);
        port
    }

    /// The certificate from which its own comes.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Stops the process that serves the relay in its tracks, as a network does that swallows
    /// everything. Returns its id.
    pub fn freeze(&self) -> String {
        let rows = self.query(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'relayered' AND pid <> 0",
        );
        assert_eq!(rows.len(), 1, "connections of the relay");
        let id = rows[0].get::<_, i32>(0).to_string();
        kill("STOP", &id);
        id
    }

    /// Starts the server, and waits until it answers.
    pub fn launch(&mut self) {
        assert!(self.server.is_none(), "it is running");
        let socket = format!("unix_socket_directories={}", self.directory.path().display());
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-c", &socket]);
        match self.tls_port {
            Some(port) => {
                let file = |name: &str| self.directory.path().join(name).display().to_string();
                let (port, key) =
                    (port.to_string(), format!("ssl_key_file={}", file("server.key")));
                let certificate = format!("ssl_cert_file={}", file("server.crt"));
                command.args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "ssl=on"]);
                command.args(["-c", &certificate, "-c", &key]);
            }
            None => drop(command.args(["-c", "listen_addresses="])),
        }
        let log = fs::File::options().append(true).create(true).open(self.log_path()).unwrap();
        self.server = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("PostgreSQL to answer", || self.try_query("SELECT 1").ok().map(drop));
    }

    /// As if the power went.
    pub fn crash(&mut self) {
        self.stop("QUIT");
    }

    pub fn shut_down(&mut self) {
        self.stop("INT");
    }

    fn stop(&mut self, signal: &str) {
        let Some(mut server) = self.server.take() else { return };
        let id = server.id().to_string();
        kill(signal, &id);
        eventually("PostgreSQL to end", || server.try_wait().unwrap());
    }

    /// # Panics
    /// If the statement fails.
    pub fn query(&self, sql: &str) -> Vec<Row> {
        self.try_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The database as SQL, by the server's own tool.
    pub fn dump(&self) -> Vec<u8> {
        let done = self.command("pg_dump").args(self.place()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        done.stdout
    }

    /// Puts a dump into an empty database.
    pub fn load(&self, dump: &[u8]) {
        let file = self.directory.path().join("dump.sql");
        fs::write(&file, dump).unwrap();
        let mut command = self.command("psql");
        command.args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).args(self.place());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    /// For the server's own tools.
    fn place(&self) -> [String; 3] {
        let socket = self.directory.path().display().to_string();
        ["-Urelayered".into(), format!("-h{socket}"), "postgres".into()]
    }

    fn try_query(&self, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
            tokio::spawn(connection);
            client.query(sql, &[]).await
        })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.env_clear().env("LC_ALL", "C").current_dir(self.directory.path());
        command.stdin(Stdio::null());
        if let Some((uid, gid)) = servant() {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            eprintln!("--- PostgreSQL's log:\n{log}\n---");
        }
        if let Some(mut server) = self.server.take() {
            // SIGQUIT ends its children too.
            let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }
}

pub fn kill(signal: &str, id: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), id]).status().unwrap();
    assert!(status.success());
}

/// PostgreSQL does not run as root: then it runs as its own user, or as nobody.
fn servant() -> Option<(u32, u32)> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    if uid.split_whitespace().nth(1) != Some("0") {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    ["postgres", "nobody"].iter().find_map(|name| {
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect())
            .find(|f: &Vec<&str>| f[0] == *name)?;
        Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
    })
}

/// The folder with all the programs used here.
fn find_binaries() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let packaged = packaged.filter_map(Result::ok).map(|entry| entry.path().join("bin"));
    let programs = ["initdb", "postgres", "pg_dump", "psql"];
    let has_all = |folder: &Path| programs.iter().all(|name| folder.join(name).exists());
    env::split_paths(&path).chain(packaged).find(|folder| has_all(folder))
}
