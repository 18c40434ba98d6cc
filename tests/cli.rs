//! The command line as an operator meets it: help, mistakes, where settings come from, exit codes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use harness::{FakePlc, Relay, eventually};
use tempfile::TempDir;

const USAGE: i32 = 64;
const CONFIG: i32 = 78;

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relayered"));
    command.env_clear().current_dir(directory).stdin(Stdio::null());
    command
}

/// Runs the binary with arguments and variables with which it must not come up.
fn run(args: &[&str], env: &[(&str, &str)]) -> Ended {
    let directory = TempDir::new().unwrap();
    let mut command = command(directory.path());
    command.args(args).envs(env.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // What it says fits into the pipes.
    let status = eventually("the binary to exit", || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Starts it in the directory, and returns the line that says where it listens.
fn listening_line(directory: &Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = command(directory);
    command.args(args).envs(env.iter().copied()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut seen = Vec::new();
    let line =
        lines.inspect(|line| seen.push(line.clone())).find(|line| line.contains("listening"));
    child.kill().unwrap();
    child.wait().unwrap();
    line.unwrap_or_else(|| panic!("it did not come up:\n{}", seen.join("\n")))
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [["--help"], ["-h"]] {
        let ended = run(&args, &[]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        for part in ["Usage: relayered", "--api-listen", "RELAY_API_LISTEN", "Exit codes:"] {
            assert!(ended.stdout.contains(part), "{part} in\n{}", ended.stdout);
        }
    }
    let ended = run(&["--version"], &[]);
    assert_eq!(ended.stdout, format!("relayered {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_flag_of_the_readme_is_in_the_help_with_its_variables() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let help = run(&["--help"], &[]).stdout;
    let words = |text: &str| -> Vec<String> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        text.split(|c| !word(c)).map(str::to_owned).collect()
    };
    let known = words(&help);
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `--")).collect();
    let flag = |word: &String| word.starts_with("--");
    let variable =
        |word: &String| word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    for row in &rows {
        // The default, in the last column, may hold anything.
        let names = row.trim_end_matches('|').rsplit_once('|').unwrap().0;
        for name in words(names).iter().filter(|word| flag(word) || variable(word)) {
            assert!(known.contains(name), "{name} of the README is not in the help");
        }
    }
    let told = rows.join("\n");
    let without_effect = help.split("Taken for compatibility").next().unwrap();
    for line in without_effect.lines().filter(|line| line.starts_with("    --")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(told.contains(&format!("`{name}`")), "{name} is not in the README's table");
    }
}

#[test]
fn every_command_of_the_help_is_in_the_readme_and_the_other_way_round() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let help = run(&["--help"], &[]).stdout;
    // `relayered admin host list|add`: a command, and the actions of a topic.
    let lines = help.lines().filter_map(|line| line.strip_prefix("    relayered "));
    let commands: Vec<Vec<&str>> = lines
        .filter(|line| !line.starts_with("--"))
        .map(|line| {
            let longest = if line.starts_with("admin") { 3 } else { 2 };
            let plain =
                |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || "-|".contains(c));
            line.split("  ").next().unwrap().split(' ').take_while(plain).take(longest).collect()
        })
        .collect();
    assert!(commands.len() > 10, "the help lists no commands:\n{help}");
    for command in &commands {
        let (topic, actions) = match command.split_last() {
            Some((last, topic)) if last.contains('|') => (topic, *last),
            _ => (command.as_slice(), ""),
        };
        // `log verify` is told behind `relayered log info`.
        let told = topic.join(" ");
        let text: String = readme.lines().filter(|line| line.contains(&told)).collect();
        assert!(!text.is_empty(), "`{told}` is not in the README");
        for action in actions.split('|') {
            assert!(text.contains(action), "{told} {action} is not in the README");
        }
    }
    for line in readme.lines().filter(|line| line.starts_with("| `relayered ")) {
        let command = line.trim_start_matches("| `").split('`').next().unwrap();
        let words: Vec<&str> = command.split(' ').take(3).collect();
        assert!(help.contains(&words.join(" ")), "`{command}` is not in the help");
    }
}

/// Arguments, variables, the exit code, and what must be said.
type Mistake<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a [&'a str]);

#[test]
fn mistakes_are_named_and_have_their_exit_codes() {
    let postgres = "postgres://relay:secret@db/relay?sslmode=maybe";
    let cases: &[Mistake<'_>] = &[
        (&["--api-listn", ":1"], &[], USAGE, &["--api-listn", "nearest is --api-listen"]),
        (&["--api-listen"], &[], USAGE, &["--api-listen needs a value"]),
        (&["-x"], &[], USAGE, &["-x", "two dashes"]),
        (&["frobnicate"], &[], USAGE, &["unknown command \"frobnicate\""]),
        (&["--api-listen", "nowhere"], &[], CONFIG, &["--api-listen", "\"nowhere\"", ":2470"]),
        (&[], &[("RELAY_API_BIND", "nowhere")], CONFIG, &["RELAY_API_BIND", "\"nowhere\""]),
        (&["--replay-window", "5y"], &[], CONFIG, &["--replay-window", "\"5y\"", "72h"]),
        (&["--replay-bytes", "lots"], &[], CONFIG, &["--replay-bytes", "\"lots\"", "512MiB"]),
        (&["--shards", "0"], &[], CONFIG, &["--shards", "from 1 to 256"]),
        (&["--driver", "kqueue"], &[], CONFIG, &["--driver", "kqueue", "epoll"]),
        (&["--disable-request-crawl=maybe"], &[], CONFIG, &["\"maybe\"", "neither true nor false"]),
        (&["--plc-host", "plc.directory"], &[], CONFIG, &["--plc-host", "https://"]),
        (&["--allow-private-hosts", "10/99"], &[], CONFIG, &["--allow-private-hosts", "10/99"]),
        (&["--db-url", postgres], &[], CONFIG, &["sslmode is disable", "--db-url"]),
        (&[], &[("DATABASE_URL", postgres)], CONFIG, &["sslmode is disable", "db/relay"]),
        (&["--data-dir", "/proc/none"], &[], CONFIG, &["/proc/none", "--data-dir"]),
    ];
    for (args, env, code, parts) in cases {
        // Where a mistake is not seen before sockets are bound, they are free ones.
        let free = [("RELAY_API_LISTEN", "127.0.0.1:0"), ("RELAY_METRICS_LISTEN", "127.0.0.1:0")];
        let free = if env.is_empty() { free.as_slice() } else { &free[1..] };
        let ended = run(args, &[free, env].concat());
        assert_eq!(ended.code, *code, "{args:?}: {}", ended.stderr);
        for part in *parts {
            assert!(ended.stderr.contains(part), "{args:?}: {part:?} in {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("secret"), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = TempDir::new().unwrap();
    let file = "# what this machine needs\nRELAY_API_LISTEN=127.0.0.2:0\n\
                export RELAY_METRICS_LISTEN=\"127.0.0.2:0\"\nDATA_DIR=from-file\n";
    fs::write(directory.path().join(".env"), file).unwrap();
    let line = |args: &[&str], env: &[(&str, &str)]| listening_line(directory.path(), args, env);

    let listening = line(&[], &[]);
    assert!(listening.contains("api=127.0.0.2:"), "{listening}");
    assert!(listening.contains("metrics=127.0.0.2:"), "{listening}");
    assert!(directory.path().join("from-file/relayered.sqlite").exists());

    // A variable's second name still wins over the first name in the file.
    for name in ["RELAY_API_LISTEN", "RELAY_API_BIND"] {
        let listening = line(&[], &[(name, "127.0.0.3:0")]);
        assert!(listening.contains("api=127.0.0.3:"), "{listening}");
        assert!(listening.contains("metrics=127.0.0.2:"), "{listening}");
    }

    let env = [("RELAY_API_LISTEN", "127.0.0.3:0"), ("DATA_DIR", "from-env")];
    let listening = line(&["--bind", "127.0.0.4:0", "--data-dir", "from-flag"], &env);
    assert!(listening.contains("api=127.0.0.4:"), "{listening}");
    assert!(directory.path().join("from-flag/log").exists());
    assert!(!directory.path().join("from-env").exists());
}

#[test]
fn a_bad_file_is_refused_without_showing_what_is_in_it() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join(".env"), "my secret key\n").unwrap();
    let output = command(directory.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(CONFIG), "{stderr}");
    assert!(stderr.contains(".env") && !stderr.contains("secret"), "{stderr}");
}

#[test]
fn a_second_relay_on_the_same_data_or_port_is_refused() {
    let mut relay = Relay::start(&FakePlc::start(), &[]);
    let data = relay.data_dir();
    let free = [("RELAY_API_LISTEN", "127.0.0.1:0"), ("RELAY_METRICS_LISTEN", "127.0.0.1:0")];
    let ended = run(&["--data-dir", data.to_str().unwrap()], &free);
    assert_eq!(ended.code, CONFIG, "{}", ended.stderr);
    assert!(ended.stderr.contains("in use by another process"), "{}", ended.stderr);

    let taken = relay.api.to_string();
    let ended = run(&["--api-listen", &taken], &free);
    assert_eq!(ended.code, CONFIG, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("cannot listen on {taken}")), "{}", ended.stderr);

    // The first one has not noticed.
    assert_eq!(relay.get("/xrpc/_health").status, 200);
    assert!(relay.terminate().success());
}

#[test]
fn the_limit_on_open_files_is_raised_to_the_hard_one() {
    let directory = TempDir::new().unwrap();
    let mut command = Command::new("sh");
    command.env_clear().current_dir(directory.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    let script = "ulimit -Sn 256; ulimit -Hn 1000; exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_relayered")]);
    command.args(["--api-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let warned = lines.any(|line| line.contains("LimitNOFILE") && line.contains("limit=1000"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(warned, "no warning that 1000 files are too few");
}
