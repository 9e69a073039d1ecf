//! `musterctl`: the client of operators and auditors.
//!
//! It holds no state and decides nothing: it asks the collector, prints the answer, and verifies snapshots without it. Whatever it
//! prints is escaped ([`print`]), because host names and reasons come from hosts that may be hostile.

mod admin;
mod args;
mod cli;
mod config;
mod connect;
mod coverage;
mod error;
mod files;
mod fleet;
mod host;
mod json;
mod log;
mod pages;
mod print;
mod snapshots;
mod statement;
mod trial;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;
use muster_proto::v1;

#[cfg(test)]
pub(crate) use cli::example;
pub use error::Error;

use cli::{Cli, Command, Controls, Credentials, Files, Findings, Hosts, LogCommand, Snapshots, Tokens};
use connect::Connection;
use print::{Form, Out};

use crate::snapshot::verify::Trust;

/// What a command found out, as an exit code: 0 yes, 1 no. What was not answered, for whatever reason, is 2: it must not look like an
/// answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Done, or as it should be.
    Yes,
    /// Not done, or not as it should be.
    No,
}

/// Exit code of what was not answered; clap ends with it on wrong usage, too.
const NOT_ANSWERED: u8 = 2;

/// Runs `musterctl` with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(Outcome::Yes) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::FAILURE,
        Err(error) => {
            print::say(&format!("musterctl: {error}"));
            ExitCode::from(NOT_ANSWERED)
        }
    }
}

fn run(cli: Cli) -> Result<Outcome, Error> {
    match cli.command {
        Command::Completions { shell } => cli::completions(shell),
        Command::Man { out } => cli::man(&out),
        command => {
            let config = config::Config::load()?;
            let form = cli.connection.output.or(config.output).unwrap_or_default();
            if form == Form::Csv && !command.has_csv() {
                return Err(Error::Usage(
                    "this command prints text or json; controls coverage prints csv, too".to_owned(),
                ));
            }
            let out = Out::new(form);
            if let Some(done) = offline(out, &command) {
                return done;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
            runtime.block_on(async {
                let connection = connect(cli.connection, config).await?;
                ask(&connection, out, command).await
            })
        }
    }
}

/// Does what needs no collector; `None` for a command that needs one.
fn offline(out: Out, command: &Command) -> Option<Result<Outcome, Error>> {
    Some(match command {
        Command::Verify { file, log_key, ca_pin } => {
            verify::run(out, file, &Trust { log_key: log_key.clone(), ca_digest: *ca_pin })
        }
        Command::Controls { command: Controls::Test { example: true, .. } } => trial::example(),
        Command::Controls { command: Controls::Test { file, .. } } => trial::run(out, file.as_deref()),
        Command::Controls { command: Controls::Fields { prefix } } => trial::fields(out, prefix),
        Command::Controls {
            command: Controls::Statement { kind: _, provider, reference, document, host, from, until },
        } => statement::write(&statement::Stated {
            provider,
            reference,
            document,
            hosts: host,
            from: *from,
            until: *until,
        }),
        Command::Controls { command: Controls::Coverage { framework, built_in, file } }
            if *built_in || file.is_some() =>
        {
            coverage::of_file(file.as_deref()).and_then(|it| coverage::print(out, &it, framework.as_deref()))
        }
        _ => return None,
    })
}

async fn connect(flags: cli::ConnectionFlags, config: config::Config) -> Result<Connection, Error> {
    let address = flags.collector.or(config.collector).unwrap_or_else(|| config::DEFAULT_COLLECTOR.to_owned());
    let credential = match flags.credential.or(config.credential) {
        Some(path) => path,
        None => config::usual_credential()?,
    };
    Connection::open(&address, &credential).await
}

async fn ask(connection: &Connection, out: Out, command: Command) -> Result<Outcome, Error> {
    match command {
        Command::Token { command } => tokens(connection, out, command).await,
        Command::Credentials { command } => credentials(connection, out, command).await,
        Command::Fleet => fleet::summary(connection, out).await,
        Command::Hosts { command } => hosts(connection, out, command).await,
        Command::Controls { command } => match command {
            Controls::List { list } => fleet::controls(connection, out, &list.filter, list.limit).await,
            Controls::Show { control } => fleet::control(connection, out, &control).await,
            Controls::Coverage { framework, .. } => {
                coverage::print(out, &coverage::of_collector(connection).await?, framework.as_deref())
            }
            // These need no connection.
            Controls::Test { .. } | Controls::Fields { .. } | Controls::Statement { .. } => Ok(Outcome::Yes),
        },
        Command::Findings { command: Findings::List { list, exit_code } } => {
            fleet::findings(connection, out, &list.filter, list.limit, exit_code).await
        }
        Command::Files { command } => files(connection, out, command).await,
        Command::Snapshot { command } => snapshots(connection, out, command).await,
        Command::Look { hosts, all: _, timeout } => {
            let seconds = args::wire_seconds(timeout).map_err(Error::Usage)?;
            host::look(connection, out, &hosts, seconds).await
        }
        Command::Watch { initial } => fleet::watch(connection, out, initial).await,
        Command::Log { command } => match command {
            LogCommand::Checkpoint => log::checkpoint(connection, out).await,
            LogCommand::Proof { index, log_size } => log::proof(connection, out, index, log_size).await,
            LogCommand::Consistency { old, new } => log::consistency(connection, out, old, new).await,
        },
        // These need no connection.
        Command::Verify { .. } | Command::Completions { .. } | Command::Man { .. } => Ok(Outcome::Yes),
    }
}

async fn tokens(connection: &Connection, out: Out, command: Tokens) -> Result<Outcome, Error> {
    match command {
        Tokens::Create { uses, lifetime, note, enroll_file, agent_collector } => {
            let new = admin::NewToken {
                uses,
                lifetime,
                note: &note,
                enroll_file: enroll_file.as_deref(),
                agent_collector: agent_collector.as_deref(),
            };
            admin::create_token(connection, out, new).await
        }
        Tokens::List { limit } => admin::tokens(connection, out, limit).await,
        Tokens::Revoke { id } => admin::revoke_token(connection, out, &id).await,
    }
}

async fn credentials(connection: &Connection, out: Out, command: Credentials) -> Result<Outcome, Error> {
    match command {
        Credentials::Create { role, name, lifetime, out: file } => {
            admin::create_credential(connection, out, &role, &name, lifetime, &file).await
        }
        Credentials::List { limit } => admin::credentials(connection, out, limit).await,
        Credentials::Revoke { serial, reason } => admin::revoke_credential(connection, out, &serial, &reason).await,
    }
}

async fn hosts(connection: &Connection, out: Out, command: Hosts) -> Result<Outcome, Error> {
    match command {
        Hosts::List { list } => fleet::hosts(connection, out, &list.filter, list.limit).await,
        Hosts::Show { host } => host::show(connection, out, &host).await,
        Hosts::Revoke { host, reason } => host::revoke(connection, out, &host, &reason).await,
        Hosts::Release { host, reason } => host::release(connection, out, &host, &reason).await,
    }
}

async fn files(connection: &Connection, out: Out, command: Files) -> Result<Outcome, Error> {
    match command {
        Files::Changes(which) => files::changes(connection, out, which).await,
        Files::Timeline { host, path } => files::timeline(connection, out, &host, path.as_deref()).await,
        Files::Explained { host, list } => files::explained(connection, out, &host, &list.filter, list.limit).await,
        Files::WhoHas { path, sha256, limit } => files::who_has(connection, out, &path, sha256, limit).await,
        Files::Acknowledge(what) => files::acknowledge(connection, out, what).await,
    }
}

async fn snapshots(connection: &Connection, out: Out, command: Snapshots) -> Result<Outcome, Error> {
    match command {
        Snapshots::Create { as_of, log_size, control, host, out: file } => {
            let hosts = snapshots::resolve(connection, host).await?;
            let request: v1::CreateSnapshotRequest = snapshots::request(as_of, log_size, control, hosts);
            snapshots::create(connection, out, request, file.as_deref()).await
        }
        Snapshots::List { limit } => snapshots::list(connection, out, limit).await,
        Snapshots::Get { id, out: file } => snapshots::get(connection, &id, &file).await,
    }
}
