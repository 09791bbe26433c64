//! The accounts of a world: root, an ordinary user, Nix's build users and sshd's.

use std::fmt::Write;

/// An ordinary user, the unprivileged client of a Nix daemon.
pub const USER_UID: u32 = 1000;
/// Its name.
pub const USER: &str = "tester";
/// Its home.
pub const USER_HOME: &str = "/home/tester";

/// `/etc/passwd`.
pub fn passwd() -> String {
    let mut text = String::from("root:x:0:0:root:/root:/bin/bash\n");
    let _ = writeln!(text, "{USER}:x:{USER_UID}:{USER_UID}::{USER_HOME}:/bin/bash");
    text.push_str("sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n");
    text.push_str("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    for number in 1..=8 {
        let _ = writeln!(text, "nixbld{number}:x:{}:30000::/var/empty:/usr/sbin/nologin", 30000 + number);
    }
    text
}

/// `/etc/group`.
pub fn group() -> String {
    let members: Vec<_> = (1..=8).map(|number| format!("nixbld{number}")).collect();
    format!(
        "root:x:0:\ntty:x:5:\n{USER}:x:{USER_UID}:\nnogroup:x:65534:\nnixbld:x:30000:{}\n",
        members.join(",")
    )
}
