//! The command line.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use muster_proto::{
    id::{AgentId, Digest},
    time::Timestamp,
};

use super::{
    Error, Outcome,
    args::{duration, instant, limit},
    print::{self, Form},
    verify::{log_key, pin},
};

mod files;

pub use files::{Acknowledgement, Changes, Files};

/// Asks a Muster collector, and verifies what it hands out.
#[derive(Debug, Parser)]
#[command(name = "musterctl", version, max_term_width = 120, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to ask, and whom.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 yes, 1 no (not valid, not sound, not every one done, or findings with --exit-code), 2 not answered:\n\
    wrong usage or settings, no collector, no such thing, not allowed, a file that cannot be read or written.\n\
    Settings: ~/.config/muster/musterctl.toml, then /etc/muster/musterctl.toml, with the keys collector (URL), credential (file)\n\
    and output (text or json); flags and MUSTER_COLLECTOR, MUSTER_CREDENTIAL come first.";

/// Flags of every command.
#[derive(Args, Debug)]
pub struct ConnectionFlags {
    /// Address of the collector, https://HOST:PORT; by default the one on this machine.
    #[arg(long, global = true, env = "MUSTER_COLLECTOR", value_name = "URL")]
    pub collector: Option<String>,
    /// File of the credential (PEM); by default ~/.config/muster/credential.pem, else the admin's of a collector on this machine.
    #[arg(long, global = true, env = "MUSTER_CREDENTIAL", value_name = "FILE")]
    pub credential: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, global = true, value_name = "FORM")]
    pub output: Option<Form>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tokens that let hosts enrol.
    Token {
        /// What to do.
        #[command(subcommand)]
        command: Tokens,
    },
    /// Credentials of people and programs.
    Credentials {
        /// What to do.
        #[command(subcommand)]
        command: Credentials,
    },
    /// Count hosts and verdicts.
    Fleet,
    /// Hosts of the fleet.
    Hosts {
        /// What to do.
        #[command(subcommand)]
        command: Hosts,
    },
    /// Controls that hosts are judged against.
    Controls {
        /// What to do.
        #[command(subcommand)]
        command: Controls,
    },
    /// What is not as it should be.
    Findings {
        /// What to do.
        #[command(subcommand)]
        command: Findings,
    },
    /// Changes of watched files.
    Files {
        /// What to do.
        #[command(subcommand)]
        command: Files,
    },
    /// Evidence to take away.
    Snapshot {
        /// What to do.
        #[command(subcommand)]
        command: Snapshots,
    },
    /// Verify a snapshot offline: every byte, signature and proof, and every verdict judged again.
    Verify {
        /// The snapshot.
        file: PathBuf,
        /// Key of the collector's log, got elsewhere than from the file: `muster-collector init` and `musterctl log checkpoint` print
        /// it, and `muster-agent status` on any host.
        #[arg(long, value_parser = log_key, value_name = "KEY")]
        log_key: Option<String>,
        /// SHA-256 of the CA that the collector must name (`sha256:HEX`). Compares; only --log-key gives trust.
        #[arg(long, value_parser = pin, value_name = "PIN")]
        ca_pin: Option<Digest>,
    },
    /// Ask hosts to look now, and wait until what they see is judged.
    Look {
        /// Hosts: id, the beginning of one, or hostname.
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "HOST")]
        hosts: Vec<String>,
        /// Every host that is neither frozen nor revoked.
        #[arg(long)]
        all: bool,
        /// How long to wait, at most 10m. A host with much to read takes longer than the default.
        #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
        timeout: Duration,
    },
    /// Print every change of a verdict as it is judged.
    Watch {
        /// Print the current verdicts first.
        #[arg(long)]
        initial: bool,
    },
    /// The evidence log.
    Log {
        /// What to do.
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Print a script that completes commands in a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages.
    Man {
        /// Folder to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Tokens that let hosts enrol.
#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Make a token. It is shown once and nowhere kept.
    Create {
        /// How many hosts may enrol with it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        uses: u32,
        /// How long it may be used.
        #[arg(long, default_value = "24h", value_parser = duration, value_name = "DURATION")]
        lifetime: Duration,
        /// What it is for.
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
        /// Write it to a file that agents enrol with, /etc/muster/enroll.toml on the host, instead of printing it.
        #[arg(long, value_name = "FILE")]
        enroll_file: Option<PathBuf>,
        /// Address that agents reach the collector at, for that file; by default the one used here.
        #[arg(long, requires = "enroll_file", value_name = "URL")]
        agent_collector: Option<String>,
    },
    /// List tokens.
    List {
        /// At most so many.
        #[arg(long, value_parser = limit, value_name = "N")]
        limit: Option<usize>,
    },
    /// Revoke a token.
    Revoke {
        /// Its id.
        id: String,
    },
}

/// Credentials of people and programs.
#[derive(Debug, Subcommand)]
pub enum Credentials {
    /// Make a key here and have a credential issued for it.
    Create {
        /// What it may do.
        #[arg(long, value_parser = ["viewer", "auditor", "enroller", "operator", "admin"])]
        role: String,
        /// Name of the person or program.
        #[arg(long)]
        name: String,
        /// How long it holds.
        #[arg(long, default_value = "90d", value_parser = duration, value_name = "DURATION")]
        lifetime: Duration,
        /// File to write, mode 0600.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// List credentials.
    List {
        /// At most so many.
        #[arg(long, value_parser = limit, value_name = "N")]
        limit: Option<usize>,
    },
    /// Revoke a credential. It stops working within a second.
    Revoke {
        /// Serial number of its certificate.
        serial: String,
        /// Why, for the evidence log.
        #[arg(long)]
        reason: String,
    },
}

/// Hosts of the fleet.
#[derive(Debug, Subcommand)]
pub enum Hosts {
    /// List hosts.
    #[command(mut_arg("filter", |it| it.help(example::HOSTS)))]
    List {
        /// Which, and how many.
        #[command(flatten)]
        list: Listing,
    },
    /// Show a host: its facts, where each comes from, and its verdicts with reasons.
    Show {
        /// Id, the beginning of one, or hostname.
        host: String,
    },
    /// Take nothing more from a host.
    Revoke {
        /// Id, the beginning of one, or hostname.
        host: String,
        /// Why, for the evidence log.
        #[arg(long)]
        reason: String,
    },
    /// Let a host go on that a conflict froze.
    Release {
        /// Id, the beginning of one, or hostname.
        host: String,
        /// Why, for the evidence log.
        #[arg(long)]
        reason: String,
    },
}

/// Controls that hosts are judged against.
#[derive(Debug, Subcommand)]
pub enum Controls {
    /// List controls with their counts.
    #[command(mut_arg("filter", |it| it.help(example::CONTROLS)))]
    List {
        /// Which, and how many.
        #[command(flatten)]
        list: Listing,
    },
    /// Show a control's definition.
    Show {
        /// Its id, such as ENC-01.
        control: String,
    },
    /// Try an operator's file of controls, or the built-in controls, on their fixtures. Needs no collector.
    ///
    /// A fixture is a host, written as changes of a sample host, with the verdict that the control must give. The collector makes
    /// the same check when it loads the file, and refuses one that is not sound. Exits with 1 when anything is wrong or untested.
    Test {
        /// The file, as the collector's setting `catalogue` names it; by default the built-in controls.
        file: Option<PathBuf>,
        /// Print a file to begin with.
        #[arg(long, conflicts_with = "file")]
        example: bool,
    },
    /// Write a provider's statement about what no agent can see, for an operator's file of controls. Needs no collector.
    ///
    /// The storage below a virtual disk is hidden from the agent, so that the verdict is unknown. Where its provider states that it is
    /// encrypted, add what this prints to the file that the collector's setting `catalogue` names, and restart the collector: the
    /// statement is then an entry of the evidence log and part of every snapshot, and the verdict says that it rests on it. Take it
    /// out of the file to revoke it. `musterctl controls show ENC-01` lists what is in force. Of the document only its SHA-256 is
    /// taken: keep it.
    Statement {
        /// What is stated: all storage below what the hosts can see is encrypted at rest.
        #[arg(long, default_value = "disk_encryption", value_parser = ["disk_encryption"])]
        kind: String,
        /// Who states it.
        #[arg(long, value_name = "NAME")]
        provider: String,
        /// Where it is stated, such as the number of a contract and its section.
        #[arg(long, value_name = "TEXT")]
        reference: String,
        /// The document.
        #[arg(long, value_name = "FILE")]
        document: PathBuf,
        /// Hosts (full id, as `musterctl hosts show NAME` shows it) that it speaks of.
        #[arg(long, required = true, value_name = "HOST")]
        host: Vec<AgentId>,
        /// From when on it holds.
        #[arg(long, value_parser = instant, value_name = "TIME")]
        from: Timestamp,
        /// Until when it holds, at most 400 days later.
        #[arg(long, value_parser = instant, value_name = "TIME")]
        until: Timestamp,
    },
    /// List what conditions may read: each field of each fact, and its value on the sample host. Needs no collector.
    Fields {
        /// Those whose path begins so, such as disk_encryption.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Report which requirements of a framework the controls support, and which endpoint evidence does not address.
    ///
    /// By the catalogue that the collector judges by; with --built-in or --file without a collector. -o csv has a row for each
    /// requirement and control. A control supports a requirement in part and never meets it.
    Coverage {
        /// The framework, such as soc2; by default the counts of all.
        #[arg(long, value_name = "NAME")]
        framework: Option<String>,
        /// Of the built-in controls.
        #[arg(long)]
        built_in: bool,
        /// Of the built-in controls with an operator's file over them.
        #[arg(long, value_name = "FILE", conflicts_with = "built_in")]
        file: Option<PathBuf>,
    },
}

impl Command {
    /// Returns whether it can print CSV.
    pub fn has_csv(&self) -> bool {
        matches!(self, Self::Controls { command: Controls::Coverage { .. } })
    }
}

/// What is not as it should be.
#[derive(Debug, Subcommand)]
pub enum Findings {
    /// List verdicts fail, unknown and no_data, the worst first.
    #[command(mut_arg("filter", |it| it.help(example::FINDINGS)))]
    List {
        /// Which, and how many.
        #[command(flatten)]
        list: Listing,
        /// Exit with 1 when there is any.
        #[arg(long)]
        exit_code: bool,
    },
}

/// Evidence to take away.
#[derive(Debug, Subcommand)]
pub enum Snapshots {
    /// Make a snapshot of one instant.
    Create {
        /// The instant, such as 2026-11-24T12:00:00Z; by default now.
        #[arg(long, value_parser = instant, value_name = "TIME")]
        as_of: Option<Timestamp>,
        /// Log entries to rest on; by default the newest checkpoint's.
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "SIZE")]
        log_size: u64,
        /// Controls to judge; by default all.
        #[arg(long, value_name = "CONTROL")]
        control: Vec<String>,
        /// Hosts in scope: id, the beginning of one, or hostname; by default all that are not revoked.
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
        /// Write it to a file.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List snapshots, newest first.
    List {
        /// At most so many.
        #[arg(long, value_parser = limit, value_name = "N")]
        limit: Option<usize>,
    },
    /// Write a snapshot to a file.
    Get {
        /// Its id.
        id: String,
        /// The file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// The evidence log.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print the newest checkpoint, and on standard error the log's key, for `verify --log-key`.
    Checkpoint,
    /// Print an entry and the proof that the log holds it.
    Proof {
        /// Index of the entry, from 0.
        index: u64,
        /// Size of the log that the proof is for; by default the newest checkpoint's.
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "SIZE")]
        log_size: u64,
    },
    /// Print the proof that the log only grew.
    Consistency {
        /// The smaller size.
        old: u64,
        /// The larger size; by default the newest checkpoint's.
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "SIZE")]
        new: u64,
    },
}

/// Help of `--filter` where each list is asked for: a filter belongs to its list's fields.
pub mod example {
    /// Of hosts.
    pub const HOSTS: &str = "Filter (AIP-160), such as: worst_verdict = fail AND hostname : web";
    /// Of controls.
    pub const CONTROLS: &str = "Filter (AIP-160), such as: severity = critical OR family = encryption";
    /// Of findings.
    pub const FINDINGS: &str = "Filter (AIP-160), such as: hostname = \"web-7\" AND verdict = fail";
    /// Of changes of files.
    pub const CHANGES: &str = "Filter (AIP-160), such as: state = open AND path : /etc/ssh";
    /// Of changes that something explains.
    pub const EXPLAINED: &str = "Filter (AIP-160), such as: source = dpkg AND package = openssl";
}

/// Which items of a list.
#[derive(Args, Debug)]
pub struct Listing {
    /// Filter (AIP-160).
    #[arg(long, default_value = "", hide_default_value = true)]
    pub filter: String,
    /// At most so many; by default all.
    #[arg(long, value_parser = limit, value_name = "N")]
    pub limit: Option<usize>,
}

/// Prints a script that completes commands in `shell`.
///
/// # Errors
///
/// When standard output cannot be written.
pub fn completions(shell: clap_complete::Shell) -> Result<Outcome, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "musterctl", &mut script);
    print::write_out(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Yes)
}

/// Writes a manual page for each command into `folder`.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn man(folder: &Path) -> Result<Outcome, Error> {
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)
    };
    write().map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    Ok(Outcome::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_look_names_hosts_or_all_and_not_both() {
        assert!(Cli::try_parse_from(["musterctl", "look"]).is_err());
        assert!(Cli::try_parse_from(["musterctl", "look", "web-7", "--all"]).is_err());
        assert!(Cli::try_parse_from(["musterctl", "look", "--all"]).is_ok());
        assert!(Cli::try_parse_from(["musterctl", "look", "web-7", "db-1", "--timeout", "5s"]).is_ok());
    }

    #[test]
    fn each_list_shows_a_filter_of_its_own() {
        for (args, help) in [
            (&["hosts", "list"][..], example::HOSTS),
            (&["controls", "list"], example::CONTROLS),
            (&["findings", "list"], example::FINDINGS),
            (&["files", "changes"], example::CHANGES),
            (&["files", "explained"], example::EXPLAINED),
        ] {
            let shown = Cli::try_parse_from(["musterctl"].iter().chain(args).chain(&["--help"])).unwrap_err();
            assert!(shown.to_string().contains(help), "{shown}");
        }
    }

    #[test]
    fn zero_is_refused_where_it_would_mean_something_else() {
        for args in [
            &["token", "create", "--lifetime", "0s"][..],
            &["credentials", "create", "--role", "viewer", "--name", "a", "--out", "f", "--lifetime", "0d"],
            &["look", "web-7", "--timeout", "0s"],
            &["hosts", "list", "--limit", "0"],
            &["token", "list", "--limit", "0"],
            &["files", "changes", "--limit", "0"],
            &["files", "who-has", "--path", "/etc/passwd", "--limit", "0"],
        ] {
            assert!(Cli::try_parse_from(["musterctl"].iter().chain(args)).is_err(), "{args:?}");
        }
        assert!(Cli::try_parse_from(["musterctl", "hosts", "list", "--limit", "1"]).is_ok());
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap();
        assert!(folder.path().join("musterctl-snapshot-create.1").exists());
        assert!(folder.path().join("musterctl.1").exists());
    }
}
