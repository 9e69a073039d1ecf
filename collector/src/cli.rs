//! The command line of `muster-collector`.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use muster_proto::{
    time::{Clock as _, SystemClock},
    words::counted,
};
use serde_json::json;

use crate::{
    config::{self, Config, LogFormat, Variables},
    data::Data,
    init, run,
};

const EXIT_CODES: &str = "Exit codes: 0 yes, 1 no (failed, damaged), 2 usage or wrong settings.\n\
    Settings: --config FILE, else collector.toml in the data folder, else /etc/muster/collector.toml; every key is also an\n\
    environment variable, such as MUSTER_LISTEN. muster-collector(1) lists them.";

const WRONG_SETTINGS: u8 = 2;

/// The settings with their defaults, as they are installed for reading: part of the manual.
const EXAMPLE: &str = include_str!("../../deploy/config/collector.toml");

/// Keeps what agents report in an evidence log, judges it, and answers.
#[derive(Debug, Parser)]
#[command(name = "muster-collector", version, max_term_width = 120, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a collector: its folder, CA, evidence log, and the first admin's credential.
    Init {
        #[command(flatten)]
        data: DataFlag,
        /// Name of the collector, for good: origin of its log and fleet of its certificates.
        #[arg(long, default_value = "c1")]
        name: String,
        /// Address and port for agents, people and programs.
        #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDR")]
        listen: SocketAddr,
        /// Further DNS name or IP address under which it is reached; may be repeated.
        #[arg(long = "san", value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Run the collector until SIGTERM.
    Run {
        #[command(flatten)]
        place: Place,
    },
    /// Check the settings, and say what is wrong and where.
    CheckConfig {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Recompute the whole evidence log from its entries and compare every file. The collector may run meanwhile.
    Fsck {
        #[command(flatten)]
        data: DataFlag,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Make the views again from the evidence log. The collector must not run.
    Rebuild {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Print completions for a shell.
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

#[derive(Args, Debug)]
struct DataFlag {
    /// The data folder.
    #[arg(long, env = "MUSTER_DATA", value_name = "DIR", default_value = config::DEFAULT_DATA)]
    data: PathBuf,
}

#[derive(Args, Debug)]
struct Place {
    #[command(flatten)]
    data: DataFlag,
    /// File of the settings.
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct OutputFlag {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Form,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Form {
    /// For a person.
    Text,
    /// One JSON value.
    Json,
}

/// Prints the `script`. That nobody reads on, as behind `| head`, is not an error.
fn completions(out: &mut dyn io::Write, script: &[u8]) -> anyhow::Result<ExitCode> {
    match out.write_all(script).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("failed to print completions"),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

/// Runs `muster-collector` with the arguments of the process.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Init { data, name, listen, names, output } => {
            make(&init::Plan { data: data.data, name, listen, names }, output.output)
        }
        Command::Run { place } => run_collector(&place),
        Command::CheckConfig { place, output } => check_config(&place, output.output),
        Command::Fsck { data, output } => fsck(&Data::new(&data.data), output.output),
        Command::Rebuild { place, output } => rebuild(&place, output.output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "muster-collector", &mut script);
            completions(&mut io::stdout().lock(), &script)
        }
        Command::Man { out } => man(&out),
    };
    outcome.unwrap_or_else(|error| {
        // The standard error may be closed; there is nowhere else to say it.
        let _ = writeln!(io::stderr(), "muster-collector: {error:#}");
        let is_usage = error.chain().any(|cause| cause.is::<config::Error>());
        if is_usage { ExitCode::from(WRONG_SETTINGS) } else { ExitCode::FAILURE }
    })
}

fn make(plan: &init::Plan, form: Form) -> anyhow::Result<ExitCode> {
    let made = init::init(plan, SystemClock.now())?;
    let (collector, for_agents) = (plan.local_url(), plan.agents_url());
    let mut out = io::stdout().lock();
    match form {
        Form::Json => {
            let value = json!({
                "data": plan.data,
                "name": plan.name,
                "collector": collector,
                "agent_collector": for_agents.as_ref().unwrap_or(&collector),
                "names": made.names,
                "ca_pin": made.ca_pin,
                "log_key": made.log_key,
                "admin_credential": made.admin,
                "admin_expire_time": made.admin_expires.to_string(),
            });
            writeln!(out, "{value}")?;
        }
        Form::Text => {
            let (data, admin) = (plan.data.display(), made.admin.display());
            let (token, hosts) = match &for_agents {
                Some(url) => (
                    format!("musterctl token create --enroll-file enroll.toml --agent-collector {url}"),
                    "then, on each host: /etc/muster/enroll.toml; its address must be one of the names above, by which hosts reach it",
                ),
                None => (
                    "musterctl token create --enroll-file enroll.toml".to_owned(),
                    "for an agent on this machine: no other host reaches the collector by this --listen",
                ),
            };
            write!(
                out,
                "collector {name} is made in {data}\n\
                 CA pin               {pin}\n\
                 log key              {key}\n\
                 certificate names    {names}\n\
                 admin's credential   {admin} (holds until {expires}; keep it safe)\n\
                 \n\
                 next:\n\
                 \x20 muster-collector run --data {data}\n\
                 \x20 export MUSTER_COLLECTOR={collector} MUSTER_CREDENTIAL={admin}\n\
                 \x20 {token}\n\
                 \x20 # {hosts}\n",
                name = plan.name,
                pin = made.ca_pin,
                key = made.log_key,
                names = made.names.join(" "),
                expires = made.admin_expires,
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the settings and the file that they are from.
fn load(place: &Place) -> Result<(Config, PathBuf), config::Error> {
    let path = config::locate(place.config.as_deref(), &place.data.data)?;
    let variables = Variables::from(|name| std::env::var(name).ok());
    Ok((Config::read(&path, &variables)?, path))
}

fn run_collector(place: &Place) -> anyhow::Result<ExitCode> {
    let (config, path) = load(place)?;
    start_logging(&config.log);
    tracing::info!(settings = %path.display(), version = env!("CARGO_PKG_VERSION"), "muster-collector starts");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start threads")?;
    let outcome = runtime.block_on(run::run(config, Data::new(&place.data.data)));
    // What still blocks has been given its time.
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn start_logging(settings: &config::Log) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&settings.filter))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match settings.format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
    }
}

fn check_config(place: &Place, form: Form) -> anyhow::Result<ExitCode> {
    let outcome = load(place).map_err(anyhow::Error::from).and_then(|(config, path)| {
        // Everything that the settings name is checked as well.
        run::load_catalogue(&config, &Data::new(&place.data.data))?;
        run::load_profiles(&config, &Data::new(&place.data.data))?;
        Ok((config, path))
    });
    let mut out = io::stdout().lock();
    match (form, outcome) {
        (Form::Text, Ok((config, path))) => {
            writeln!(out, "{} is fine: collector {} listens on {}", path.display(), config.name, config.listen)?;
            Ok(ExitCode::SUCCESS)
        }
        (Form::Json, Ok((config, path))) => {
            writeln!(out, "{}", json!({ "valid": true, "file": path, "settings": config }))?;
            Ok(ExitCode::SUCCESS)
        }
        (Form::Text, Err(error)) => {
            writeln!(io::stderr(), "muster-collector: {error:#}")?;
            Ok(ExitCode::from(WRONG_SETTINGS))
        }
        (Form::Json, Err(error)) => {
            writeln!(out, "{}", json!({ "valid": false, "error": format!("{error:#}") }))?;
            Ok(ExitCode::from(WRONG_SETTINGS))
        }
    }
}

fn fsck(data: &Data, form: Form) -> anyhow::Result<ExitCode> {
    let report = run::check_log(data)?;
    let bad = report.bad.as_ref().map(|bad| (data.log().join(&bad.path), bad.what.clone()));
    let mut out = io::stdout().lock();
    match form {
        Form::Json => {
            let bad = bad.as_ref().map(|(path, what)| json!({ "file": path, "what": what }));
            let value = json!({
                "whole": bad.is_none(),
                "size": report.size,
                "entries": report.entries,
                "files": report.files,
                "bad": bad,
            });
            writeln!(out, "{value}")?;
        }
        Form::Text => match &bad {
            None => {
                writeln!(out, "the log is whole: {}, {}", counted(report.size, "entry"), counted(report.files, "file"))?
            }
            Some((path, what)) => writeln!(out, "{}: {what}", path.display())?,
        },
    }
    Ok(if bad.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rebuild(place: &Place, form: Form) -> anyhow::Result<ExitCode> {
    let run::Rebuilt { log_size, digest, before } = run::rebuild(&Data::new(&place.data.data), Arc::new(SystemClock))?;
    let mut out = io::stdout().lock();
    match form {
        Form::Json => {
            let unusable = match &before {
                run::Before::Same | run::Before::Different => None,
                run::Before::Unusable(why) => Some(why),
            };
            let value = json!({
                "log_size": log_size,
                "digest": digest.to_string(),
                "same": before == run::Before::Same,
                "unusable": unusable,
            });
            writeln!(out, "{value}")?;
        }
        Form::Text => {
            let before = match before {
                run::Before::Same => "they were the same before".to_owned(),
                run::Before::Different => "they were DIFFERENT before".to_owned(),
                run::Before::Unusable(why) => format!("there was nothing to compare with: {why}"),
            };
            writeln!(out, "views made again from a log of {}: digest {digest}; {before}", counted(log_size, "entry"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn man(out: &Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(out).with_context(|| format!("failed to make {}", out.display()))?;
    let write = || {
        clap_mangen::generate_to(Cli::command(), out)?;
        let mut page = std::fs::File::options().append(true).open(out.join("muster-collector.1"))?;
        page.write_all(settings_section(EXAMPLE).as_bytes())
    };
    write().with_context(|| format!("failed to write to {}", out.display()))?;
    Ok(ExitCode::SUCCESS)
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
        let page = std::fs::read_to_string(folder.path().join("muster-collector.1")).unwrap();
        let (_, settings) = page.split_once(".SH SETTINGS\n").unwrap();
        assert!(settings.contains("\\&#inbox_bytes = 268435456\n"), "{settings}");
        // What a reader sees is the example.
        let mut shown = settings.replace(".nf\n", "").replace(".fi\n", "");
        for (escaped, plain) in [(r"\&", ""), (r"\-", "-"), (r"\(aq", "'"), (r"\(ga", "`"), (r"\e", "\\")] {
            shown = shown.replace(escaped, plain);
        }
        assert_eq!(shown, EXAMPLE);
    }
}
