//! The build hook: Nix starts it, asks it about derivations, and lets it build those that it accepts.
//!
//! One plain process without threads: Nix stands still while it waits for a reply, and starting up is part of every
//! build's cost. A process answers any number of questions and then builds at most one derivation.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use thiserror::Error;

use super::accepted::{Accepted, Ended};
use super::activity::{self, LEVEL_ERROR, LEVEL_TALKATIVE};
use super::chain::{self, Answer, Chain};
use super::derivation::Derivation;
use super::descriptors::{BuildLog, DescriptorError, Descriptors};
use super::failure::Failure;
use super::judgement::{Judgement, judge};
use super::question::{Order, Question};
use super::register::Registrar;
use super::reply::Reply;
use super::settings::{Settings, SettingsError};
use super::store_command::NixProgram;
use super::wire::{WireError, WireReader};
use crate::config::{Config, ConfigError, GuestKind};
use crate::control::client::{Client, ClientError, Place};

/// How the hook introduces itself to the daemon.
const FRONT_END: &str = "build-hook";

/// Why the hook can't go on. All of it ends Nix's run, so none of it is a matter of one derivation.
#[derive(Debug, Error)]
pub enum HookError {
    /// Not started by Nix.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// Started by a Lix whose hooks speak Cap'n Proto.
    #[error(
        "this Lix speaks another build hook protocol (2.94 and later); darling-builder's hook works with Nix, and with Lix up to 2.93"
    )]
    Lix,
    /// The settings can't be read.
    #[error("failed to read the settings that Nix sends: {0}")]
    Settings(#[from] SettingsError),
    /// A question can't be read.
    #[error("failed to read what Nix asks: {0}")]
    Question(#[from] WireError),
    /// Nix does not read any more, so nobody can be told.
    #[error("Nix has closed the hook's output: {0}")]
    NixIsGone(#[from] std::io::Error),
}

/// Answers Nix's questions until there are none, or until a build is done. Returns the exit status.
///
/// A configuration that can't be used is told and then nothing is ours: builds for other systems must not suffer.
pub fn run(config: Result<Config, ConfigError>, verbosity: u32) -> Result<u8, HookError> {
    let Descriptors { questions, replies, log } = Descriptors::claim()?;
    let mut reader = WireReader::new(questions);
    if reader.at_end()? {
        return if Descriptors::output_is_socket() { Err(HookError::Lix) } else { Ok(0) };
    }
    let settings = Settings::read(&mut reader)?;
    let nix = NixProgram::of_parent();
    let chain = if chain::has_builders(&settings.builders) { Elsewhere::Possible } else { Elsewhere::Nobody };
    let mut hook =
        Hook { config: None, verbosity, settings, nix, replies, log, chain, told: BTreeSet::new() };
    match config {
        Ok(config) => hook.config = Some(config),
        Err(error) => hook.tell(LEVEL_ERROR, &format!("{error}; nothing is built with darling-builder"))?,
    }
    while let Some(question) = Question::read(&mut reader)? {
        match hook.decide(&question)? {
            Decision::Reply(reply) => reply.write(&mut hook.replies)?,
            Decision::Build { derivation, client, ahead } => {
                return hook.build(reader, &derivation, client, ahead);
            }
            Decision::Fail(reason) => return hook.fail(reader, &question, reason),
            Decision::Follow { chain, name } => {
                let (ahead, questions) = reader.into_rest();
                return Ok(chain.follow(name, ahead, questions, &mut hook.replies)?);
            }
        }
    }
    Ok(0)
}

/// What comes of a question.
enum Decision {
    /// This reply, and on to the next question.
    Reply(Reply),
    /// Accept and build.
    Build { derivation: Box<Derivation>, client: Client, ahead: u32 },
    /// Accept and fail with this reason.
    Fail(String),
    /// Nix's own hook has accepted on this machine.
    Follow { chain: Chain, name: String },
}

/// Who is asked about what we don't build.
enum Elsewhere {
    /// Nobody is configured, or whoever was has died.
    Nobody,
    /// Nix's own hook, not started yet.
    Possible,
    /// Nix's own hook.
    Running(Chain),
}

struct Hook {
    /// `None` if it can't be used.
    config: Option<Config>,
    verbosity: u32,
    settings: Settings,
    nix: NixProgram,
    replies: File,
    log: BuildLog,
    chain: Elsewhere,
    told: BTreeSet<String>,
}

impl Hook {
    fn decide(&mut self, question: &Question) -> Result<Decision, HookError> {
        let Some(config) = &self.config else { return self.ask_elsewhere(question) };
        match judge(question, &self.settings, config) {
            Judgement::NotOurs { reason, elsewhere } => {
                self.tell(LEVEL_TALKATIVE, &format!("not for darling-builder: {reason}"))?;
                if elsewhere { self.ask_elsewhere(question) } else { Ok(Decision::Reply(Reply::Decline)) }
            }
            // Another machine may be able to.
            Judgement::Impossible(reason) => match self.ask_elsewhere(question)? {
                Decision::Reply(Reply::Decline) => Ok(Decision::Fail(reason)),
                decision => Ok(decision),
            },
            Judgement::Ours(derivation) => match reserve(config) {
                Ok((client, Place::Reserved { ahead })) => Ok(Decision::Build { derivation, client, ahead }),
                Ok((_, Place::Full(reason))) => {
                    self.tell(
                        LEVEL_TALKATIVE,
                        &format!("darling-builder takes no more builds for now: {reason}"),
                    )?;
                    Ok(Decision::Reply(Reply::Postpone))
                }
                Err(error) => {
                    self.tell(LEVEL_ERROR, &format!("error: {error}"))?;
                    self.ask_elsewhere(question)
                }
            },
        }
    }

    /// What Nix's own hook says; without one, `decline`.
    fn ask_elsewhere(&mut self, question: &Question) -> Result<Decision, HookError> {
        let chain = match std::mem::replace(&mut self.chain, Elsewhere::Nobody) {
            Elsewhere::Nobody => return Ok(Decision::Reply(Reply::Decline)),
            Elsewhere::Running(chain) => Ok(chain),
            Elsewhere::Possible => Chain::start(&self.nix, self.verbosity, &self.settings, &self.log),
        };
        let answered = chain.and_then(|mut chain| {
            let answer = chain.ask(question, &mut self.replies)?;
            Ok((chain, answer))
        });
        match answered {
            Ok((chain, Answer::Accepts(name))) => Ok(Decision::Follow { chain, name }),
            Ok((chain, Answer::Postpones)) => {
                self.chain = Elsewhere::Running(chain);
                Ok(Decision::Reply(Reply::Postpone))
            }
            Ok((chain, Answer::Declines)) => {
                self.chain = Elsewhere::Running(chain);
                Ok(Decision::Reply(Reply::Decline))
            }
            Ok((_, Answer::DeclinesForever)) => Ok(Decision::Reply(Reply::Decline)),
            Err(error) => {
                self.tell(LEVEL_ERROR, &format!("Nix's own remote build hook has failed: {error}"))?;
                Ok(Decision::Reply(Reply::Decline))
            }
        }
    }

    fn build(
        mut self,
        reader: WireReader<File>,
        derivation: &Derivation,
        client: Client,
        ahead: u32,
    ) -> Result<u8, HookError> {
        let Some(config) = self.config.take() else { return Ok(1) };
        Reply::Accept(machine_name(&config).into()).write(&mut self.replies)?;
        self.log.leave_reading_to_nix();
        // It has nothing more to do: the end of its input ends it.
        self.chain = Elsewhere::Nobody;
        let result = self.build_accepted(reader, &config, derivation, client, ahead);
        let status = match result {
            Ok(()) => 0,
            Err(Ended::NixIsGone) => 1,
            Err(Ended::Failed { failure, kept }) => self.report(&failure, kept.as_deref())?,
        };
        self.log.drain();
        Ok(status)
    }

    fn build_accepted(
        &mut self,
        mut reader: WireReader<File>,
        config: &Config,
        derivation: &Derivation,
        client: Client,
        ahead: u32,
    ) -> Result<(), Ended> {
        let registrar = if ahead == 0 { Some(Registrar::start(&self.nix)?) } else { None };
        let order = Order::read(&mut reader)?;
        let accepted = Accepted {
            config,
            settings: &self.settings,
            nix: &self.nix,
            derivation,
            registrar,
            log: &mut self.log,
        };
        accepted.run(&order, client)
    }

    /// Accepts and fails: a decline of what Nix can't build itself would end its whole run.
    fn fail(
        mut self,
        mut reader: WireReader<File>,
        question: &Question,
        reason: String,
    ) -> Result<u8, HookError> {
        let name = self.config.as_ref().map_or("darling-builder", machine_name);
        Reply::Accept(name.into()).write(&mut self.replies)?;
        let derivation = String::from_utf8_lossy(&question.derivation).into_owned();
        // Nix sends its order before it looks at anything else.
        Order::read(&mut reader)?;
        self.report(&Failure::Impossible { derivation, reason }, None)
    }

    fn report(&mut self, failure: &Failure, kept: Option<&Path>) -> Result<u8, HookError> {
        self.replies.write_all(&activity::message(LEVEL_ERROR, &format!("error: {failure}")))?;
        if let Some(kept) = kept {
            let note = format!("note: keeping build directory '{}'", kept.display());
            self.replies.write_all(&activity::message(LEVEL_ERROR, &note))?;
        }
        Ok(failure.status())
    }

    /// Tells something once a process, however often it is the case.
    fn tell(&mut self, level: u8, text: &str) -> Result<(), HookError> {
        if self.told.insert(text.to_owned()) {
            self.replies.write_all(&activity::message(level, text))?;
        }
        Ok(())
    }
}

fn reserve(config: &Config) -> Result<(Client, Place), ClientError> {
    let mut client = Client::connect(&config.socket, FRONT_END)?;
    let place = client.reserve()?;
    Ok((client, place))
}

/// What Nix shows after "building … on". The stand-in is never called Darling.
fn machine_name(config: &Config) -> &'static str {
    match config.guest {
        GuestKind::Darling => "darling-builder",
        GuestKind::Linux => "linux-stand-in",
    }
}
