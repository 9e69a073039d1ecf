//! The command line.
//!
//! Exit codes: 0 yes, 1 no, 2 wrong usage; `run` ends with 78 (`EX_CONFIG` of sysexits.h) when only a person can mend it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use muster_proto::time::{Clock as _, SystemClock};

use crate::{
    config::{self, Config, LogFormat},
    connect::Trust,
    enroll::{self, CaPin, Request, Token},
    identity::{self, CollectorUrl},
    inspect,
    looker::Probes,
    run, status,
};

/// Only a person can mend it; starting again changes nothing.
const EX_CONFIG: u8 = 78;

/// Looks at this machine and gets signed reports to a Muster collector.
#[derive(Debug, Parser)]
#[command(name = "muster-agent", version, max_term_width = 120)]
pub struct Cli {
    /// Settings file; must exist when it is named.
    #[arg(long, global = true, env = "MUSTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// State folder, in place of the settings' `state_directory`.
    #[arg(long, global = true, env = "MUSTER_STATE_DIRECTORY", value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Looks, reports and sends until it is stopped (SIGTERM). Without an identity it waits for the enrolment file.
    Run,
    /// Makes this host an agent of a fleet.
    ///
    /// Running it again after a failure, with the same token, goes on where it stopped.
    Enroll(Enroll),
    /// Shows the agent's state, and exactly what it has sent. Works while the agent runs, and without it.
    Status {
        /// `json` for programs.
        #[arg(short, long, default_value = "text")]
        output: Output,
        /// How many of the newest reports to show.
        #[arg(long, default_value_t = 5, value_name = "N")]
        reports: usize,
        /// Shows every reported fact in full.
        #[arg(long)]
        facts: bool,
    },
    /// Makes probes look once and shows what they saw. Nothing is reported.
    Probe {
        /// Only this probe, such as `firewall`.
        name: Option<String>,
        /// Looks at a folder that `capture` made, as of the time it was made, in place of this machine.
        #[arg(long, value_name = "DIR")]
        host: Option<PathBuf>,
        /// `json` for programs.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// Keeps everything that probes read of this machine in a folder, for `probe --host` and for bug reports.
    ///
    /// Look through it before you give it away: it names packages, users' processes and network addresses of this host.
    Capture {
        /// Only this probe, such as `firewall`.
        name: Option<String>,
        /// Folder to make.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Works on the file-integrity baseline.
    #[command(subcommand)]
    Fim(Fim),
    /// Checks the settings and shows those in force.
    CheckConfig,
    /// Prints a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages.
    Man {
        /// Folder to write into.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Fim {
    /// Takes the baseline afresh: every difference up to now is accepted. The next report says so, with the reason.
    Rebaseline {
        /// Why, for the auditor.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Args, Debug)]
struct Enroll {
    /// Enrolment file, as `musterctl token create --enroll-file` writes it; in place of the other options.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "token_file", "ca", "ca_pin"])]
    file: Option<PathBuf>,
    /// Address of the collector, such as https://c1.example:7443.
    #[arg(long, env = "MUSTER_COLLECTOR", value_name = "URL")]
    collector: Option<CollectorUrl>,
    /// Token. Other users of this host can see it among the processes: --token-file or MUSTER_TOKEN keep it to yourself.
    #[arg(long, env = "MUSTER_TOKEN", hide_env_values = true, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File with the token; `-` reads it from standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the collector's CA certificate (PEM).
    #[arg(long, value_name = "FILE", conflicts_with = "ca_pin")]
    ca: Option<PathBuf>,
    /// SHA-256 of the collector's CA certificate, as `musterctl token create` prints it.
    #[arg(long, value_name = "sha256:HEX")]
    ca_pin: Option<CaPin>,
}

/// Runs the program `muster-agent`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_service = matches!(cli.command, Command::Run);
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster-agent: {error:#}");
            let needs_someone = error.is::<config::Error>()
                || matches!(error.downcast_ref(), Some(run::Error::Identity(_) | run::Error::InUse(_)));
            if is_service && needs_someone { ExitCode::from(EX_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Run => run_agent(load(&cli)?.config),
        Command::Enroll(options) => enroll_host(load(&cli)?.config, options),
        Command::Status { output, reports, facts } => {
            show_status(&load(&cli)?.config, *output, status::Options { reports: *reports, facts: *facts })
        }
        Command::Probe { name, host, output } => {
            let format = match output {
                Output::Text => inspect::Format::Text,
                Output::Json => inspect::Format::Json,
            };
            let settings = load(&cli)?.config.probes;
            let out = &mut std::io::stdout().lock();
            inspect::probe(name.as_deref(), host.as_deref(), &settings, SystemClock.now(), format, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Capture { name, out } => {
            inspect::capture(name.as_deref(), out, &load(&cli)?.config.probes, SystemClock.now())?;
            eprintln!("captured to {}; look through it before you give it away", out.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Fim(Fim::Rebaseline { reason }) => rebaseline(&load(&cli)?.config, reason),
        Command::CheckConfig => check_config(&load(&cli)?),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "muster-agent", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { out } => {
            std::fs::create_dir_all(out).with_context(|| format!("failed to make folder {}", out.display()))?;
            clap_mangen::generate_to(Cli::command(), out)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn load(cli: &Cli) -> Result<config::Loaded, config::Error> {
    // Variables that are not text are none of the agent's.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut loaded = config::load(cli.config.as_deref(), environment)?;
    if let Some(state) = &cli.state {
        loaded.config.state_directory.clone_from(state);
    }
    Ok(loaded)
}

fn run_agent(config: Config) -> anyhow::Result<ExitCode> {
    start_log(&config);
    // Before the probes make their folders below it.
    identity::Folder::open(&config.state_directory).map_err(run::Error::from)?;
    runtime()?.block_on(async {
        let stop = run::Stop::on_signals()?;
        let (probes, hints) = Probes::start(&config).context("failed to start the probes")?;
        let claim = probes.claim().await;
        run::run(config, Box::new(probes), claim, hints, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn enroll_host(config: Config, options: &Enroll) -> anyhow::Result<ExitCode> {
    start_log(&config);
    let request = request(&config, options)?;
    let folder = identity::Folder::open(&config.state_directory)?;
    if let Some(identity) = folder.identity()? {
        anyhow::ensure!(
            identity.collector == request.collector,
            "this host is agent {} of {}; to enrol it elsewhere, stop the agent and delete {}",
            identity.agent,
            identity.collector,
            config.state_directory.display()
        );
        println!("already enrolled as {} at {}", identity.agent, identity.collector);
        return Ok(ExitCode::SUCCESS);
    }
    runtime()?.block_on(async {
        let (probes, _) = Probes::start(&config).context("failed to start the probes")?;
        let identity = enroll::enroll(&folder, &request, probes.claim().await).await?;
        println!(
            "enrolled as {} at {}; the certificate ends {} and renews itself",
            identity.agent, identity.collector, identity.expire_time
        );
        Ok(ExitCode::SUCCESS)
    })
}

fn request(config: &Config, options: &Enroll) -> anyhow::Result<Request> {
    if let Some(file) = &options.file {
        return Ok(Request::of_file(file)?);
    }
    let collector = options.collector.clone().map_or_else(
        || config.collector.as_ref().map(|url| url.parse()).transpose().map_err(anyhow::Error::msg),
        |url| Ok(Some(url)),
    )?;
    let collector = collector.context("no collector: pass --collector https://HOST:PORT, or --file")?;
    let token = match (&options.token, &options.token_file) {
        (Some(token), _) => Token::new(token),
        (None, Some(file)) => Token::new(&read_token(file)?),
        (None, None) => {
            anyhow::bail!("no token: pass --token-file FILE, or set MUSTER_TOKEN; 'musterctl token create' makes one")
        }
    };
    let trust = match (&options.ca, options.ca_pin) {
        (Some(ca), _) => enroll::authorities(ca)?,
        (None, Some(pin)) => Trust::Pin(pin.0),
        (None, None) => {
            anyhow::bail!("whom to trust: pass --ca FILE or --ca-pin sha256:HEX, as 'musterctl token create' prints it")
        }
    };
    Ok(Request { collector, token, trust })
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("failed to read the token from standard input");
    }
    std::fs::read_to_string(file).with_context(|| format!("failed to read the token from {}", file.display()))
}

fn show_status(config: &Config, output: Output, options: status::Options) -> anyhow::Result<ExitCode> {
    let state = &config.state_directory;
    // A folder that may not be read must not look like one that is not there.
    if let Err(error) = std::fs::read_dir(state)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error)
            .with_context(|| format!("failed to read {}; run this as the agent's user or as root", state.display()));
    }
    let shown = status::show(state, options)?;
    match output {
        Output::Text => print!("{}", shown.text(options)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&shown)?),
    }
    Ok(if shown.is_running { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rebaseline(config: &Config, reason: &str) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!reason.trim().is_empty(), "a reason is needed: it is part of the evidence");
    match identity::Folder::open(&config.state_directory) {
        // Root may act for the agent: what it writes there is given to the agent.
        Ok(_) | Err(identity::Error::Owner { user: 0, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let baseline = inspect::rebaseline(&config.state_directory, &config.probes, SystemClock.now(), reason)?;
    println!("baseline {} of {} entries, taken {}", baseline.id, baseline.entries, baseline.created_time);
    Ok(ExitCode::SUCCESS)
}

fn check_config(loaded: &config::Loaded) -> anyhow::Result<ExitCode> {
    for file in &loaded.files {
        println!("# {}", file.display());
    }
    for variable in &loaded.variables {
        println!("# {variable} from the environment");
    }
    print!("{}", toml::to_string(&loaded.config)?);
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // One thread: an idle agent has nothing to run beside. The other one is for name resolution.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
    runtime.context("failed to start the run-time")
}

fn start_log(config: &Config) {
    use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

    let level = config.log.level.parse::<Targets>().expect("checked when the settings were loaded");
    let registry = tracing_subscriber::registry().with(level);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // The journal has its own time.
    let has_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = match (config.log.format, has_journal) {
        (LogFormat::Json, _) => registry.with(layer.json()).try_init(),
        (LogFormat::Text, true) => registry.with(layer.without_time()).try_init(),
        (LogFormat::Text, false) => registry.with(layer).try_init(),
    };
    // Only a second call fails, and there is none.
    let _ = started;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_enrolment_needs_is_asked_for_by_name() {
        let config = Config::default();
        let pin = format!("sha256:{}", "ab".repeat(32));
        for (arguments, missing) in [
            (vec!["--ca-pin", &pin, "--token", "t"], "--collector"),
            (vec!["--collector", "https://c1", "--ca-pin", &pin], "--token-file"),
            (vec!["--collector", "https://c1", "--token", "t"], "--ca-pin"),
        ] {
            let cli = Cli::try_parse_from(["muster-agent", "enroll"].into_iter().chain(arguments)).unwrap();
            let Command::Enroll(options) = cli.command else { panic!() };
            let error = request(&config, &options).unwrap_err().to_string();
            assert!(error.contains(missing), "{error}");
        }
    }
}
