use std::collections::HashMap;

use super::*;
use crate::env::Layers;

fn run(args: &str, env: &[(&str, &str)]) -> Result<Invocation, ArgsError> {
    let args: Vec<String> = args.split_ascii_whitespace().map(str::to_owned).collect();
    let layer: HashMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    parse(&args, &Layers::new([layer]))
}

fn flags(args: &str, env: &[(&str, &str)]) -> Flags {
    match run(args, env).unwrap() {
        Invocation::Serve { flags, .. } => *flags,
        other => panic!("{other:?}"),
    }
}

#[test]
fn aliases_and_both_forms_of_values() {
    for args in ["--api-listen :1", "--bind :1", "--bind=:1", "serve --bind :1", "--bind :1 serve"]
    {
        assert_eq!(flags(args, &[]).api_listen.as_deref(), Some(":1"), "{args}");
    }
    assert_eq!(flags("--bind :1 --api-listen :2", &[]).api_listen.as_deref(), Some(":2"));
}

#[test]
fn flags_win_over_variables_and_first_variable_over_second() {
    let env = [("RELAY_API_LISTEN", ":1"), ("RELAY_API_BIND", ":2")];
    assert_eq!(flags("", &env).api_listen.as_deref(), Some(":1"));
    assert_eq!(flags("", &env[1..]).api_listen.as_deref(), Some(":2"));
    assert_eq!(flags("--bind :3", &env).api_listen.as_deref(), Some(":3"));
}

#[test]
fn lists_repeat_on_the_command_line_and_have_commas_in_variables() {
    let env = [("RELAY_ADMIN_PASSWORD", "a, b,,")];
    assert_eq!(flags("", &env).admin_key, ["a", "b"]);
    assert_eq!(flags("--admin-key c,d --admin-password e", &env).admin_key, ["c,d", "e"]);
}

#[test]
fn switches_can_be_switched_off_again() {
    assert!(flags("--crawl-insecure-ws", &[]).allow_insecure_hosts);
    let on = [("RELAY_ALLOW_INSECURE_HOSTS", "true")];
    assert!(flags("", &on).allow_insecure_hosts);
    assert!(!flags("--allow-insecure-hosts=false", &on).allow_insecure_hosts);
    assert!(!flags("", &[("RELAY_ALLOW_INSECURE_HOSTS", "0")]).allow_insecure_hosts);
    let error = run("", &[("RELAY_ALLOW_INSECURE_HOSTS", "maybe")]).unwrap_err();
    let text = r#"RELAY_ALLOW_INSECURE_HOSTS: "maybe" is neither true nor false"#;
    assert_eq!(error, ArgsError::Value(text.into()));
}

#[test]
fn ignored_flags_are_told() {
    let invocation =
        run("--concurrency-per-pds 5 --time-seq", &[("RELAY_MAX_QUEUE_PER_PDS", "9")]).unwrap();
    let Invocation::Serve { ignored, .. } = invocation else { panic!() };
    assert_eq!(ignored, ["--concurrency-per-pds", "--time-seq", "RELAY_MAX_QUEUE_PER_PDS"]);
}

#[test]
fn errors_say_what_was_meant() {
    for (args, hint) in [
        ("--admin-kye x", "--admin-key"),
        ("--relay-window 1h", "--replay-window"),
        ("--api-listen", "needs a value"),
        ("pull-host", "unknown command"),
        ("serve extra", "one command"),
        ("-x", "two dashes"),
        ("--listen :1", "--api-listen"),
    ] {
        let error = run(args, &[]).unwrap_err().to_string();
        assert!(error.contains(hint), "{args}: {error}");
    }
    let error = run("--zzzzzzzzzzzz", &[]).unwrap_err().to_string();
    assert!(!error.contains("nearest"), "{error}");
}

#[test]
fn log_commands_take_the_relays_flags_too() {
    let log = |args: &str| match run(args, &[("DATA_DIR", "d")]).unwrap() {
        Invocation::Log { command, flags } => (command, flags.data_dir.unwrap()),
        other => panic!("{other:?}"),
    };
    assert_eq!(log("log info"), (LogCommand::Info { json: false }, "d".into()));
    assert_eq!(
        log("log --data-dir x verify --json"),
        (LogCommand::Verify { json: true }, "x".into())
    );
    let dump = LogCommand::Dump { from: 7, count: 2, json: false };
    assert_eq!(log("log dump --from 7 --count=2 --allow-insecure-hosts"), (dump, "d".into()));
    for (args, hint) in [
        ("log", "needs a command"),
        ("log inof", "inof"),
        ("log dump --from x", "number"),
        ("log info --from 3", "for dump"),
        ("log info serve", "Usage"),
    ] {
        let error = run(args, &[]).unwrap_err().to_string();
        assert!(error.contains(hint), "{args}: {error}");
    }
    assert!(matches!(run("log --help", &[]).unwrap(), Invocation::Print(_)));
}

#[test]
fn db_copy_takes_two_urls() {
    let copy = DbCommand::Copy { from: "sqlite://a".into(), to: "postgres://b/c".into() };
    assert_eq!(run("db copy sqlite://a postgres://b/c", &[]).unwrap(), Invocation::Db(copy));
    for (args, hint) in [
        ("db", "needs a command"),
        ("db move a b", "move"),
        ("db copy a", "two URLs"),
        ("db copy a b c", "two URLs"),
        ("db copy --data-dir x", "two URLs"),
    ] {
        let error = run(args, &[]).unwrap_err().to_string();
        assert!(error.contains(hint), "{args}: {error}");
    }
    assert!(matches!(run("db copy --help", &[]).unwrap(), Invocation::Print(_)));
}

#[test]
fn every_flag_of_the_table_reaches_argh() {
    for flag in table::all() {
        let args = match flag.kind {
            Kind::Switch | Kind::IgnoredSwitch => format!("--{}", flag.name),
            _ => format!("--{} 1", flag.name),
        };
        assert!(run(&args, &[]).is_ok(), "{args}");
    }
}

#[test]
fn help_names_every_flag_and_variable() {
    let Invocation::Print(text) = run("--help", &[]).unwrap() else { panic!() };
    for flag in table::all() {
        assert!(text.contains(&format!("--{}", flag.name)), "{}", flag.name);
        if !flag.help.is_empty() {
            assert!(flag.env.iter().all(|name| text.contains(name)), "{}", flag.name);
        }
    }
    assert!(text.lines().all(|line| line.len() <= 100));
}
