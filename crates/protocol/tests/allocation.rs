//! What a payload can make a reader allocate. A test program of its own, because it counts every allocation.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]
#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use protocol::frame;
use protocol::hello::Hello;
use protocol::message::{FromAgent, ToAgent};

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator; the counters are constants-initialised thread locals without
// destructors, which do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(LIVE.get()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes that were allocated at once while `run` ran.
fn peak<T>(run: impl FnOnce() -> T) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    let _result = run();
    (PEAK.get() - before) as usize
}

fn with_lengths(prefix: &[u8], lengths: &[u64]) -> Vec<u8> {
    let mut payload = prefix.to_vec();
    for length in lengths {
        payload.extend(length.to_le_bytes());
    }
    payload
}

/// Room for error texts.
const SLACK: usize = 512;

#[test]
fn a_claimed_length_allocates_nothing() {
    for claim in [100, 0xffff, 1 << 20, 1 << 32, 1 << 48, u64::MAX >> 1, u64::MAX] {
        // Arguments: element count; element count and string. Environment. Prepare: program.
        for payload in [
            with_lengths(&[1, 0, 0, 0], &[claim]),
            with_lengths(&[1, 0, 0, 0], &[1, claim]),
            with_lengths(&[2, 0, 0, 0], &[claim, 0, claim]),
            with_lengths(&[0, 0, 0, 0], &[claim]),
        ] {
            let used = peak(|| frame::decode::<ToAgent>(&payload).unwrap_err());
            assert!(used <= SLACK, "{claim}: {used} bytes for {payload:?}");
            let used = peak(|| frame::decode_large::<ToAgent>(&payload).unwrap_err());
            assert!(used <= SLACK, "{claim}: {used} bytes, large, for {payload:?}");
        }
        // Diagnostics: text, then element count; Exited SpawnFailed: text.
        for payload in [
            with_lengths(&[4, 0, 0, 0], &[claim]),
            with_lengths(&[4, 0, 0, 0], &[0, claim]),
            with_lengths(&[2, 0, 0, 0, 2, 0, 0, 0], &[claim]),
        ] {
            let used = peak(|| frame::decode_large::<FromAgent>(&payload).unwrap_err());
            assert!(used <= SLACK, "{claim}: {used} bytes for {payload:?}");
        }
    }
}

#[test]
fn a_frame_over_the_cap_allocates_nothing() {
    let used = peak(|| frame::read::<ToAgent>(&mut &b"\x01\0\x10\0abc"[..]).unwrap_err());
    assert!(used <= SLACK, "{used}");
    let used = peak(|| Hello::read(&mut &b"\x01\x10\0\0abc"[..]).unwrap_err());
    assert!(used <= SLACK, "{used}");
}

#[test]
fn many_small_elements_cost_in_proportion() {
    // 10,000 empty arguments: 8 bytes each on the way, 24 in memory, and a vector that doubles as it grows.
    let payload = with_lengths(&[1, 0, 0, 0], &[&[10_000][..], &[0; 10_000]].concat());
    let used = peak(|| frame::decode::<ToAgent>(&payload).unwrap());
    assert!(used <= 10 * payload.len(), "{used} bytes for {}", payload.len());
}
