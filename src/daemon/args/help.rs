//! `--help` and `--version`.

use std::fmt::Write as _;

use super::table::{Flag, GROUPS, Kind};

const WIDTH: usize = 92;
const INDENT: usize = 8;

const HEAD: &str = "\
relayered: an AT Protocol relay. Many PDS hosts in, one verified firehose out.

Usage: relayered [serve] [FLAGS]        runs the relay
       relayered COMMAND --help         of admin, pull-hosts, check-host
       relayered --help | --version

Operate a running relay through its admin API (--relay-url, --admin-key, --json):
    relayered admin host list|detail|connected|add|block|unblock|disconnect
    relayered admin host limits|strictness|reset-cursor
    relayered admin domain list|ban|unban
    relayered admin trusted-domain list|add|remove
    relayered admin account takedown|reverse|list|status
    relayered admin consumers list|kick
    relayered admin settings show|set
    relayered admin siblings list|retry
    relayered admin discovery list|refused|run
    relayered admin status stats|log|signatures
    relayered admin audit               what operators changed
    relayered admin explain HOST|DID    why its events are not in the firehose

Find hosts:
    relayered pull-hosts                adds the hosts that another relay lists
    relayered check-host HOST           looks at a host as a relay would

Know identities beforehand:
    relayered plc-import [--follow]     those of the PLC directory's export (--plc-host), so that a
                                        new relay need not ask for each; goes on where it stopped

Look into the event log (--data-dir or --persist-dir, --json); all but repair only read, also beside
a running relay:
    relayered log info                  what it holds
    relayered log verify                reads it whole; exit code 1 if anything is damaged
    relayered log dump [--from SEQ] [--count N]
                                        the events, one a line
    relayered log repair                what a start would repair, of a relay that is stopped

Keep the data safe:
    relayered backup DIR                event log and database into a new directory, also beside a
                                        running relay; --log-only leaves the database out
    relayered restore DIR               puts a backup into an empty data directory
    relayered db copy FROM TO           a stopped relay's database into an empty one; URLs as for
                                        --db-url

Every flag can also be given as an environment variable, or in a file `.env` in the working
directory. Flags win over the environment, the environment over the file. Times are written as
72h, 5m or 30s, sizes as 512MiB or 10GB. Lists: repeat the flag, or put commas into the variable.

To try it:
    relayered --admin-key localdev
    RELAY_ADMIN_KEY=localdev relayered admin host add pds.example.com
";

pub(super) fn version() -> String {
    format!("relayered {}\n", env!("CARGO_PKG_VERSION"))
}

pub(super) fn text() -> String {
    let mut out = HEAD.to_owned();
    for group in GROUPS {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n{}:\n", group.title);
        if group.flags.iter().all(|flag| flag.help.is_empty()) {
            let names: Vec<String> =
                group.flags.iter().map(|flag| format!("--{}", flag.name)).collect();
            wrap(&names.join(" "), 4, &mut out);
            continue;
        }
        for flag in group.flags {
            describe(flag, &mut out);
        }
    }
    out.push_str(
        "\nExit codes: 0 stopped in order or done, 1 log damaged, 2 refused by a relay or a check, \
         64 wrong\nusage, 69 relay not reached, 70 fault, 77 wrong admin key, 78 wrong \
         configuration.\n\
         SIGTERM and SIGINT stop it in order, a second one at once.\n",
    );
    out
}

fn describe(flag: &Flag, out: &mut String) {
    let value = match flag.kind {
        Kind::Value(name) | Kind::List(name) => format!(" {name}"),
        Kind::Switch | Kind::IgnoredValue | Kind::IgnoredSwitch => String::new(),
    };
    let _ = write!(out, "    --{}{value}", flag.name);
    for alias in flag.aliases {
        let _ = write!(out, " (or --{alias})");
    }
    out.push('\n');
    wrap(flag.help, INDENT, out);
    let again = if matches!(flag.kind, Kind::List(_)) { "; may be repeated" } else { "" };
    wrap(&format!("[{}; default {}{again}]", flag.env.join(", "), flag.default), INDENT, out);
}

fn wrap(text: &str, indent: usize, out: &mut String) {
    let mut column = 0;
    for word in text.split_ascii_whitespace() {
        if column == 0 || column + 1 + word.len() > WIDTH {
            if column > 0 {
                out.push('\n');
            }
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}
