//! Whatever Nix sends to a build hook is read or refused, and what is read means the same when it is written again.

#![no_main]

use host_agent::nix::question::read_session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((settings, questions)) = read_session(bytes) else { return };
    let mut again = settings.encode();
    questions.iter().for_each(|question| again.extend(question.encode()));
    let (_, same) = read_session(&again).expect("what was written is read");
    assert_eq!(same, questions);
});
