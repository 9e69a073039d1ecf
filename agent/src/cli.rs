//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config;

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

/// Runs the program `muster-agent`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::CheckConfig => check_config(&cli),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "muster-agent", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { out } => {
            clap_mangen::generate_to(Cli::command(), out)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn load(cli: &Cli) -> Result<config::Loaded, config::Error> {
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut loaded = config::load(cli.config.as_deref(), environment)?;
    if let Some(state) = &cli.state {
        loaded.config.state_directory = state.clone();
    }
    Ok(loaded)
}

fn check_config(cli: &Cli) -> anyhow::Result<ExitCode> {
    let loaded = load(cli)?;
    for file in &loaded.files {
        println!("# {}", file.display());
    }
    for variable in &loaded.variables {
        println!("# {variable} from the environment");
    }
    print!("{}", toml::to_string(&loaded.config)?);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
