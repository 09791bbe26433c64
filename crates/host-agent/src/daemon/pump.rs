//! While the builder runs: its output from the agent to the front end, and everything that can end it.
//!
//! At most one piece of output is held here. While the front end does not take it, the agent is not read, the guest's
//! socket fills up, and the builder waits: nothing grows. That time does not count as the builder's silence. It may take
//! as long as it likes, unless another build waits for its turn.

use std::pin::pin;
use std::time::{Duration, Instant};

use protocol::ByteString;
use protocol::frame::FrameError;
use protocol::limits::PROCESS_STRINGS_MAX;
use protocol::message::{Exit, FromAgent, ResourceLimits, Streams, ToAgent, Usage};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant as Deadline, sleep_until};

use super::Mode;
use super::inside::Inside;
use super::outgoing::{NotTaken, Outgoing};
use super::session::Connection;
use crate::control::message::{FromDaemon, ToDaemon};
use crate::control::stream::{FrameReader, is_gone, send};
use crate::guest::darling::remarks::Remarks;
use crate::request::{BUILD_DIR, BuildLimits};
use crate::slot::plan::FromSlot;

/// Strings in each message to the agent; one string has at most 128 KiB (Linux), a frame 1 MiB.
const BATCH_BYTES: usize = 256 << 10;

/// A builder that has ended, or was given up.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself, or by a limit.
    Exit(Exit, Usage),
    /// Time stands still inside; a tick was not answered for so many milliseconds.
    Stalled(u64),
    /// The front end is gone, or as good as gone.
    Left(NotTaken),
    /// The slot can't go on; the reason.
    Lost(String),
}

impl Ended {
    /// Whether something hung: what the slot was doing is then worth a report.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self, Ended::Stalled(_) | Ended::Exit(Exit::TimedOut | Exit::Silent, _))
    }
}

/// What the agent is to run.
pub(super) struct Process<'a> {
    pub(super) program: &'a ByteString,
    pub(super) argv: &'a [ByteString],
    pub(super) env: &'a [(ByteString, ByteString)],
    pub(super) streams: Streams,
    /// Largest file it may write, bytes.
    pub(super) file_size: Option<u64>,
}

/// Longest time in which an agent takes what it is sent. One that works takes it at once.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Sends the agent what to run, and starts it.
pub(super) async fn start(agent: &mut OwnedWriteHalf, process: Process<'_>) -> Result<(), String> {
    match tokio::time::timeout(TAKEN_WITHIN, send_all(agent, process)).await {
        Ok(result) => result,
        Err(_) => Err(format!("the agent did not read its builder within {} s", TAKEN_WITHIN.as_secs())),
    }
}

async fn send_all(agent: &mut OwnedWriteHalf, process: Process<'_>) -> Result<(), String> {
    let strings: usize = process.argv.iter().map(|arg| arg.len() + 1).sum::<usize>()
        + process.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    if strings > PROCESS_STRINGS_MAX {
        return Err(format!(
            "the builder's arguments and environment have {strings} bytes; a process can be given {PROCESS_STRINGS_MAX} \
             (try passAsFile)"
        ));
    }
    let mut messages = vec![ToAgent::Prepare {
        program: process.program.clone(),
        directory: BUILD_DIR.into(),
        streams: process.streams,
        umask: 0o022,
    }];
    messages.extend(batches(process.argv, |arg| arg.len()).map(ToAgent::Arguments));
    messages.extend(batches(process.env, |(name, value)| name.len() + value.len()).map(ToAgent::Environment));
    messages.push(ToAgent::Limits(ResourceLimits { core: 0, file_size: process.file_size }));
    messages.push(ToAgent::Start);
    for message in &messages {
        send(agent, message).await.map_err(|error| match error {
            FrameError::TooLarge(size) => format!(
                "one of the builder's arguments or environment variables has {size} bytes; Linux takes 131072 at most \
                 (try passAsFile)"
            ),
            error => format!("failed to send the builder to the agent: {error}"),
        })?;
    }
    Ok(())
}

fn batches<'a, T: Clone>(
    items: &'a [T],
    size: impl Fn(&T) -> usize + 'a,
) -> impl Iterator<Item = Vec<T>> + 'a {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = rest
            .iter()
            .take_while(|item| {
                bytes += size(item) + 16;
                bytes <= BATCH_BYTES
            })
            .count()
            .max(1)
            .min(rest.len());
        let (batch, left) = rest.split_at(count);
        rest = left;
        (!batch.is_empty()).then(|| batch.to_vec())
    })
}

/// Starts the builder and relays until it has ended. Returns how, and how many bytes of output there were; `printed` is told
/// meanwhile.
pub(super) async fn relay(
    inside: &mut Inside,
    process: Process<'_>,
    connection: &mut Connection,
    limits: &BuildLimits,
    mode: &mut watch::Receiver<Mode>,
    printed: impl Fn(u64),
    log: &mut Log,
) -> (Ended, u64) {
    let Log { outgoing, remarks } = log;
    let started = Instant::now();
    let mut log_bytes = 0;
    let mut heard = Instant::now();
    let mut over_limit = None;
    let mut begin = pin!(start(&mut inside.agent_writer, process));
    let mut begun = false;
    let limited = |exit, started: Instant| {
        let usage = Usage { wall_micros: started.elapsed().as_micros() as u64, ..Usage::default() };
        Ended::Exit(exit, usage)
    };
    loop {
        if outgoing.is_empty()
            && let Some(exit) = over_limit.take()
        {
            return (limited(exit, started), log_bytes);
        }
        tokio::select! {
            biased;
            // Whoever asked comes first: it may be gone.
            message = connection.reader.next::<ToDaemon>() => return (match message {
                Ok(None) => Ended::Left(NotTaken::Gone),
                Err(error) if is_gone(&error) => Ended::Left(NotTaken::Gone),
                _ => Ended::Lost("the front end spoke while its build was running".into()),
            }, log_bytes),
            () = stopping(mode) => return (Ended::Lost("the daemon was stopped".into()), log_bytes),
            // Before what the agent says, of which there may always be more.
            () = at(started, limits.wall) => return (limited(Exit::TimedOut, started), log_bytes),
            event = inside.slot.next::<FromSlot>() => return (match event {
                Ok(Some(FromSlot::Stalled(late))) => Ended::Stalled(late),
                Ok(Some(FromSlot::Failed(reason))) => Ended::Lost(reason),
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => Ended::Lost("the slot's first process was killed".into()),
            }, log_bytes),
            sent = &mut begin, if !begun => match sent {
                Ok(()) => begun = true,
                Err(reason) => return (Ended::Lost(reason), log_bytes),
            },
            written = outgoing.write_to(&connection.writer), if !outgoing.is_empty() => {
                if let Err(not_taken) = written {
                    return (Ended::Left(not_taken), log_bytes);
                }
                heard = Instant::now();
            }
            message = inside.agent_reader.next(), if begun && outgoing.is_empty() => match message {
                Ok(Some(FromAgent::Output { bytes, .. })) => {
                    heard = Instant::now();
                    let mut bytes = bytes.into_vec();
                    remarks.look(&bytes);
                    if let Some(limit) = limits.log_bytes
                        && log_bytes + bytes.len() as u64 > limit
                    {
                        bytes.truncate((limit - log_bytes) as usize);
                        over_limit = Some(Exit::LogLimit);
                    }
                    log_bytes += bytes.len() as u64;
                    printed(log_bytes);
                    if let Err(error) = outgoing.put(&FromDaemon::Output(bytes.into())) {
                        return (Ended::Lost(error.to_string()), log_bytes);
                    }
                }
                Ok(Some(FromAgent::Exited { exit, usage })) => return (Ended::Exit(exit, usage), log_bytes),
                Ok(Some(FromAgent::Started { .. })) => {}
                Ok(Some(_)) => {
                    return (Ended::Lost("the agent spoke of what a build does not have".into()), log_bytes);
                }
                Ok(None) => return (Ended::Lost(why_gone(&mut inside.slot).await), log_bytes),
                Err(error) if error.is_gone() => {
                    return (Ended::Lost(why_gone(&mut inside.slot).await), log_bytes);
                }
                Err(error) => return (Ended::Lost(error.to_string()), log_bytes),
            },
            () = at(heard, limits.silence), if outgoing.is_empty() => {
                return (limited(Exit::Silent, started), log_bytes);
            }
        }
    }
}

/// Longest wait for what the slot says of its agent's end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why there is no agent any more. The slot sees more of it than the end of a connection.
pub(super) async fn why_gone(slot: &mut FrameReader<OwnedReadHalf>) -> String {
    const UNKNOWN: &str = "the agent in the slot ended before the builder did";
    let said = tokio::time::timeout(LAST_WORDS, async {
        loop {
            match slot.next::<FromSlot>().await {
                Ok(Some(FromSlot::Failed(reason))) => return reason,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return UNKNOWN.into(),
            }
        }
    });
    said.await.unwrap_or_else(|_| UNKNOWN.into())
}

/// Returns when the daemon is ending at once.
pub(super) async fn stopping(mode: &mut watch::Receiver<Mode>) {
    if mode.wait_for(|mode| *mode == Mode::Stopping).await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub(super) async fn at(from: Instant, limit: Option<Duration>) {
    match limit.and_then(|limit| from.checked_add(limit)) {
        Some(deadline) => sleep_until(Deadline::from_std(deadline)).await,
        None => std::future::pending().await,
    }
}

/// A build's log on its way to the front end.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) outgoing: Outgoing,
    /// What the guest has put into the builder's output.
    pub(super) remarks: Remarks,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_order_and_everything_and_stay_small() {
        let items: Vec<usize> = (0..1000).map(|n| n * 7 % 5000).chain([BATCH_BYTES * 2, 1]).collect();
        let batches: Vec<Vec<usize>> = batches(&items, |size| *size).collect();
        assert_eq!(batches.concat(), items);
        assert!(batches.iter().all(|batch| batch.len() == 1 || batch.iter().sum::<usize>() <= BATCH_BYTES));
        assert!(batches.len() < items.len());
    }
}
