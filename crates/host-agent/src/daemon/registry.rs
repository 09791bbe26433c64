//! What `status` tells: every slot and every build there is, and what has been.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::peer::Peer;
use crate::control::message::{BuildStatus, EndedBuild, FrontEndName, SlotStatus};
use crate::request::{BuildPhase, PhaseTimings};
use crate::store_path::StoreName;

/// Where a slot is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    Booting,
    Warm,
    Busy,
    Ssh,
    Stopping,
}

impl SlotState {
    fn as_str(self) -> &'static str {
        match self {
            SlotState::Booting => "booting",
            SlotState::Warm => "warm",
            SlotState::Busy => "busy",
            SlotState::Ssh => "ssh",
            SlotState::Stopping => "stopping",
        }
    }
}

/// Ended builds that are remembered.
const RECENT: usize = 20;

/// How a build went out of sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Succeeded,
    Failed,
    Cancelled,
}

impl Fate {
    fn as_str(self) -> &'static str {
        match self {
            Fate::Succeeded => "succeeded",
            Fate::Failed => "failed",
            Fate::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug)]
pub(super) struct Registry {
    started: Instant,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    slots: BTreeMap<u32, SlotRecord>,
    builds: BTreeMap<u64, BuildRecord>,
    next_build: u64,
    fates: HashMap<&'static str, u64>,
    recent: VecDeque<EndedRecord>,
}

#[derive(Debug)]
struct SlotRecord {
    uid: u32,
    state: SlotState,
    since: Instant,
    boot: Option<Duration>,
}

#[derive(Debug)]
struct BuildRecord {
    derivation: Option<StoreName>,
    front_end: FrontEndName,
    uid: u32,
    slot: Option<u32>,
    phase: String,
    since: Instant,
    log_bytes: u64,
}

#[derive(Debug)]
struct EndedRecord {
    derivation: StoreName,
    fate: Fate,
    at: Instant,
    timings: PhaseTimings,
    log_bytes: u64,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), tables: Mutex::default() }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn slot_booting(&self, id: u32, uid: u32) {
        let record = SlotRecord { uid, state: SlotState::Booting, since: Instant::now(), boot: None };
        self.tables().slots.insert(id, record);
    }

    pub(super) fn slot_booted(&self, id: u32, boot: Duration) {
        if let Some(slot) = self.tables().slots.get_mut(&id) {
            slot.state = SlotState::Warm;
            slot.boot = Some(boot);
        }
    }

    pub(super) fn slot_is(&self, id: u32, state: SlotState) {
        if let Some(slot) = self.tables().slots.get_mut(&id) {
            slot.state = state;
        }
    }

    pub(super) fn slot_gone(&self, id: u32) {
        self.tables().slots.remove(&id);
    }

    /// A place was reserved; the build's number.
    fn build_new(&self, front_end: &FrontEndName, peer: Peer) -> u64 {
        let mut tables = self.tables();
        let id = tables.next_build;
        tables.next_build += 1;
        tables.builds.insert(
            id,
            BuildRecord {
                derivation: None,
                front_end: front_end.clone(),
                uid: peer.uid,
                slot: None,
                phase: "reserved".into(),
                since: Instant::now(),
                log_bytes: 0,
            },
        );
        id
    }

    pub(super) fn build_is_of(&self, id: u64, derivation: &StoreName) {
        if let Some(build) = self.tables().builds.get_mut(&id) {
            build.derivation = Some(derivation.clone());
        }
    }

    pub(super) fn build_phase(&self, id: u64, phase: &BuildPhase) {
        if let Some(build) = self.tables().builds.get_mut(&id) {
            build.phase = match phase {
                BuildPhase::Queued(_) => "queued",
                BuildPhase::Preparing(slot) => {
                    build.slot = Some(*slot);
                    "preparing"
                }
                BuildPhase::Building => "building",
                BuildPhase::Stopping => "stopping",
                BuildPhase::Publishing => "publishing",
            }
            .into();
        }
    }

    pub(super) fn build_log(&self, id: u64, bytes: u64) {
        if let Some(build) = self.tables().builds.get_mut(&id) {
            build.log_bytes = bytes;
        }
    }

    pub(super) fn build_gone(&self, id: u64, fate: Fate, timings: PhaseTimings) {
        let mut tables = self.tables();
        let Some(build) = tables.builds.remove(&id) else { return };
        *tables.fates.entry(fate.as_str()).or_default() += 1;
        if let Some(derivation) = build.derivation {
            tables.recent.truncate(RECENT - 1);
            let log_bytes = build.log_bytes;
            let record = EndedRecord { derivation, fate, at: Instant::now(), timings, log_bytes };
            tables.recent.push_front(record);
        }
    }

    pub(super) fn recent(&self) -> Vec<EndedBuild> {
        let tables = self.tables();
        let ended = tables.recent.iter().map(|build| EndedBuild {
            derivation: build.derivation.clone(),
            fate: build.fate.as_str().into(),
            ago: build.at.elapsed(),
            timings: build.timings,
            log_bytes: build.log_bytes,
        });
        ended.collect()
    }

    /// Builds that succeeded, failed, were cancelled.
    pub(super) fn fates(&self) -> (u64, u64, u64) {
        let tables = self.tables();
        let count = |fate: Fate| tables.fates.get(fate.as_str()).copied().unwrap_or(0);
        (count(Fate::Succeeded), count(Fate::Failed), count(Fate::Cancelled))
    }

    pub(super) fn slots(&self) -> Vec<SlotStatus> {
        let memory = resident_by_uid();
        self.tables()
            .slots
            .iter()
            .map(|(id, slot)| SlotStatus {
                id: *id,
                uid: slot.uid,
                state: slot.state.as_str().into(),
                age: slot.since.elapsed(),
                boot: slot.boot,
                memory_bytes: memory.get(&slot.uid).copied().unwrap_or(0),
            })
            .collect()
    }

    pub(super) fn builds(&self) -> Vec<BuildStatus> {
        let mut builds: Vec<BuildStatus> = self
            .tables()
            .builds
            .values()
            .map(|build| BuildStatus {
                derivation: build.derivation.clone(),
                front_end: build.front_end.clone(),
                uid: build.uid,
                slot: build.slot,
                phase: build.phase.clone(),
                age: build.since.elapsed(),
                log_bytes: build.log_bytes,
            })
            .collect();
        builds.sort_by_key(|build| build.slot.is_none());
        builds
    }
}

/// A build that is shown from its reservation on, until it is [told](Registry::build_gone) to have ended, or this is dropped:
/// a place that nothing came of, and a shell, are no builds to count.
#[derive(Debug)]
pub(super) struct Listed {
    registry: Arc<Registry>,
    id: u64,
}

impl Listed {
    pub(super) fn new(registry: &Arc<Registry>, front_end: &FrontEndName, peer: Peer) -> Self {
        Self { registry: Arc::clone(registry), id: registry.build_new(front_end, peer) }
    }

    /// The build's number.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.registry.tables().builds.remove(&self.id);
    }
}

/// Resident memory of all processes, by real uid, bytes. Processes that end meanwhile are left out.
fn resident_by_uid() -> HashMap<u32, u64> {
    let mut resident = HashMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit()) {
        // The name in it is what the process has chosen, and need not be UTF-8.
        let Ok(status) = std::fs::read(process.path().join("status")) else { continue };
        let status = String::from_utf8_lossy(&status);
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        if let (Some(uid), Some(kib)) = (number("Uid:"), number("VmRSS:")) {
            *resident.entry(uid as u32).or_default() += kib << 10;
        }
    }
    resident
}
