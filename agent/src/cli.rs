//! The command line.
//!
//! Exit codes: 0 yes, 1 no, 2 wrong usage; `fim` has its own; `run` ends with 78 (`EX_CONFIG` of sysexits.h) when only a person can mend it.

mod fim;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use muster_proto::time::{Clock as _, SystemClock};
use serde_json::json;

use self::fim::Fim;
use crate::{
    config::{self, Config, LogFormat},
    connect::Trust,
    enroll::{self, CaPin, Request, Token},
    host::Live,
    identity::{self, CollectorUrl},
    inspect,
    looker::Probes,
    run, status,
};

/// Only a person can mend it; starting again changes nothing.
const EX_CONFIG: u8 = 78;
/// Wrong usage, which clap ends with too, or wrong settings.
const USAGE: u8 = 2;

/// The command line lacks something.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(&'static str);

const EXIT_CODES: &str = "Exit codes: 0 yes, 1 no (failed; `status`: it does not run), 2 usage or wrong settings; `run` ends with 78 \
    when only a person can mend it.\n\
    Settings: --config FILE, else /etc/muster/agent.toml, then agent.toml.d/*.toml beside it; every key is also an environment\n\
    variable, such as MUSTER_INTERVALS_FIREWALL. muster-agent(1) lists them, none needs to be set.";

/// The settings with their defaults, as they are installed: part of the manual.
const EXAMPLE: &str = include_str!("../../deploy/config/agent.toml");

/// Looks at this machine and gets signed reports to a Muster collector.
#[derive(Debug, Parser)]
#[command(name = "muster-agent", version, max_term_width = 120, after_help = EXIT_CODES)]
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
    /// Makes probes look once and shows what they saw. Nothing is reported, and what the agent remembers is only read.
    ///
    /// As root, or whoever the agent runs as, it sees what this host's agent would: changes since the agent's own baseline. Without
    /// one, the look takes a baseline for itself, which reads every watched file.
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
    /// Compares files with a baseline: on its own, without an agent or a collector. `rebaseline` is for this host's agent.
    #[command(subcommand)]
    Fim(Fim),
    /// Checks the settings and shows those in force.
    CheckConfig {
        /// `json` for programs.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
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
    // The variable is read by hand, so that it gives way to --file and --token-file in place of contradicting them.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
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
                || matches!(
                    error.downcast_ref(),
                    Some(run::Error::Identity(_) | run::Error::InUse(_) | run::Error::State { .. })
                );
            let is_usage = error.is::<Usage>()
                || error.is::<config::Error>()
                || matches!(error.downcast_ref(), Some(inspect::Error::NoSuchProbe(..)));
            match (is_service, needs_someone, is_usage) {
                (true, true, _) => ExitCode::from(EX_CONFIG),
                (_, _, true) => ExitCode::from(USAGE),
                (_, _, false) => ExitCode::FAILURE,
            }
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
            let Config { probes, state_directory, .. } = load(&cli)?.config;
            let out = &mut std::io::stdout().lock();
            let now = SystemClock.now();
            let not_copied =
                inspect::probe(name.as_deref(), host.as_deref(), &state_directory, &probes, now, format, out)?;
            if let Some(error) = not_copied {
                eprintln!(
                    "muster-agent: what the agent remembers in {} could not be copied ({error}): this look began without \
                     it, and file integrity compares with what is there now; look as root, or as the agent's user",
                    state_directory.display()
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Capture { name, out } => {
            inspect::capture(name.as_deref(), out, &load(&cli)?.config.probes, SystemClock.now())?;
            eprintln!("captured to {}; look through it before you give it away", out.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Fim(Fim::Alone(command)) => Ok(fim::alone(command)),
        Command::Fim(Fim::Rebaseline { reason }) => fim::rebaseline(&load(&cli)?.config, reason),
        Command::Fim(Fim::Sets { output }) => fim::show_sets(&load(&cli)?.config, *output),
        Command::CheckConfig { output } => check_config(load(&cli), *output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "muster-agent", &mut script);
            print_to(&mut io::stdout().lock(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { out } => {
            man(out).with_context(|| format!("failed to write to {}", out.display()))?;
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
    let request = request(&config, options, std::env::var("MUSTER_TOKEN").ok())?;
    let folder = identity::Folder::open(&config.state_directory)?;
    if let Some(identity) = folder.identity()? {
        anyhow::ensure!(
            identity.collector == request.collector,
            "this host is agent {} of {}; to enrol it elsewhere, stop the agent and delete {}",
            identity.agent,
            identity.collector,
            config.state_directory.display()
        );
        print(&format!("already enrolled as {} at {}\n", identity.agent, identity.collector))?;
        return Ok(ExitCode::SUCCESS);
    }
    runtime()?.block_on(async {
        let (probes, _) = Probes::start(&config).context("failed to start the probes")?;
        let identity = enroll::enroll(&folder, &request, probes.claim().await).await?;
        print(&format!(
            "enrolled as {} at {}; the certificate ends {} and renews itself\n",
            identity.agent, identity.collector, identity.expire_time
        ))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Returns what enrolment needs. `variable` is MUSTER_TOKEN, which options go before.
fn request(config: &Config, options: &Enroll, variable: Option<String>) -> anyhow::Result<Request> {
    if let Some(file) = &options.file {
        return Ok(Request::of_file(file)?);
    }
    let collector = options.collector.clone().map_or_else(
        || config.collector.as_ref().map(|url| url.parse()).transpose().map_err(anyhow::Error::msg),
        |url| Ok(Some(url)),
    )?;
    let collector = collector.ok_or(Usage("no collector: pass --collector https://HOST:PORT, or --file"))?;
    let token = match (&options.token, &options.token_file, variable) {
        (Some(token), _, _) => Token::new(token),
        (None, Some(file), _) => Token::new(&read_token(file)?),
        (None, None, Some(token)) => Token::new(&token),
        (None, None, None) => {
            const MISSING: &str =
                "no token: pass --token-file FILE, or set MUSTER_TOKEN; 'musterctl token create' makes one";
            return Err(Usage(MISSING).into());
        }
    };
    let trust = match (&options.ca, options.ca_pin) {
        (Some(ca), _) => enroll::authorities(ca)?,
        (None, Some(pin)) => Trust::Pin(pin.0),
        (None, None) => {
            const MISSING: &str =
                "whom to trust: pass --ca FILE or --ca-pin sha256:HEX, as 'musterctl token create' prints it";
            return Err(Usage(MISSING).into());
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
        Output::Text => print(&shown.text(options))?,
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&shown)?))?,
    }
    Ok(if shown.is_running { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_config(loaded: Result<config::Loaded, config::Error>, output: Output) -> anyhow::Result<ExitCode> {
    let loaded = loaded.map(|mut loaded| {
        let probes = &mut loaded.config.probes;
        if probes.watched_paths.is_empty() {
            probes.watch_sets = crate::fim::sets::in_force(probes, &Live::new());
        }
        loaded
    });
    let loaded = match (loaded, output) {
        (Ok(loaded), Output::Text) => loaded,
        (Ok(loaded), Output::Json) => {
            let config::Loaded { config, files, variables } = loaded;
            let told = json!({ "valid": true, "files": files, "variables": variables, "settings": config });
            print(&format!("{told}\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        (Err(error), Output::Text) => return Err(error.into()),
        (Err(error), Output::Json) => {
            let error = anyhow::Error::from(error);
            print(&format!("{}\n", json!({ "valid": false, "error": format!("{error:#}") })))?;
            return Ok(ExitCode::from(USAGE));
        }
    };
    let mut text = String::new();
    for file in &loaded.files {
        text.push_str(&format!("# {}\n", file.display()));
    }
    for variable in &loaded.variables {
        text.push_str(&format!("# {variable} from the environment\n"));
    }
    text.push_str(&toml::to_string(&loaded.config)?);
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints text on standard output.
fn print(text: &str) -> anyhow::Result<()> {
    print_to(&mut io::stdout().lock(), text.as_bytes())
}

/// Writes to `out`. That nobody reads on, as behind `| head`, is not an error.
fn print_to(out: &mut dyn io::Write, bytes: &[u8]) -> anyhow::Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("failed to write the output"),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes the manual pages: one for each command, and in the first one the settings.
fn man(out: &Path) -> io::Result<()> {
    std::fs::create_dir_all(out)?;
    clap_mangen::generate_to(Cli::command(), out)?;
    let mut page = std::fs::File::options().append(true).open(out.join("muster-agent.1"))?;
    page.write_all(settings_section(EXAMPLE).as_bytes())
}

/// Returns the section of a manual page that shows `example` line by line.
fn settings_section(example: &str) -> String {
    // As groff_char(7) asks for: `-` and the quotes would come out as other characters than those of a keyboard.
    const ESCAPES: [(char, &str); 4] = [('\\', r"\e"), ('-', r"\-"), ('\'', r"\(aq"), ('`', r"\(ga")];
    let mut section = ".SH SETTINGS\n.nf\n".to_owned();
    for line in example.lines() {
        // What follows it is no request, whatever it begins with.
        section.push_str(r"\&");
        for c in line.chars() {
            match ESCAPES.iter().find(|(plain, _)| *plain == c) {
                Some((_, escaped)) => section.push_str(escaped),
                None => section.push(c),
            }
        }
        section.push('\n');
    }
    section + ".fi\n"
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
    fn the_manual_shows_every_setting() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("muster-agent.1")).unwrap();
        let (_, settings) = page.split_once(".SH SETTINGS\n").unwrap();
        assert!(settings.contains("\\&#attestation_interval = \"1h\"\n"), "{settings}");
        // What a reader sees is the example.
        let mut shown = settings.replace(".nf\n", "").replace(".fi\n", "");
        for (escaped, plain) in [(r"\&", ""), (r"\-", "-"), (r"\(aq", "'"), (r"\(ga", "`"), (r"\e", "\\")] {
            shown = shown.replace(escaped, plain);
        }
        assert_eq!(shown, EXAMPLE);
    }

    #[test]
    fn a_reader_who_goes_away_is_no_error_and_a_full_disk_is_one() {
        struct Broken(io::ErrorKind);
        impl io::Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut written = Vec::new();
        print_to(&mut written, b"text\n").unwrap();
        assert_eq!(written, b"text\n");
        assert!(print_to(&mut Broken(io::ErrorKind::BrokenPipe), b"text").is_ok());
        assert!(print_to(&mut Broken(io::ErrorKind::StorageFull), b"text").is_err());
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
            let error = request(&config, &options, None).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains(missing), "{error}");
        }
    }

    #[test]
    fn a_token_of_the_environment_gives_way_to_options() {
        let folder = tempfile::tempdir().unwrap();
        let (file, token_file) = (folder.path().join("enroll.toml"), folder.path().join("token"));
        let pin = format!("sha256:{}", "ab".repeat(32));
        std::fs::write(&file, format!("collector = \"https://c1\"\ntoken = \"a\"\nca_pin = \"{pin}\"\n")).unwrap();
        std::fs::write(&token_file, "b\n").unwrap();
        let (file, token_file) = (file.to_str().unwrap(), token_file.to_str().unwrap());
        let rest = ["--collector", "https://c1", "--ca-pin", &pin];
        for (arguments, expected) in [
            (vec!["--file", file], "a"),
            ([&rest[..], &["--token-file", token_file]].concat(), "b"),
            ([&rest[..], &["--token", "c"]].concat(), "c"),
            (rest.to_vec(), "variable"),
        ] {
            let cli = Cli::try_parse_from(["muster-agent", "enroll"].into_iter().chain(arguments)).unwrap();
            let Command::Enroll(options) = cli.command else { panic!() };
            let request = request(&Config::default(), &options, Some("variable".to_owned())).unwrap();
            assert!(request.token == Token::new(expected), "{expected}");
        }
    }
}
