//! A way out of a world: another machine with servers on it, which is the world's default route and its resolver, and what pasta needs
//! to lead there.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::etc::WritableEtc;
use super::machine::{ADDRESS, Machine};
use super::servers;

const DIRECTORY: &str = "/scratch/far";
const TUN: &str = "/dev/net/tun";

/// It; everything is as before when this is dropped.
#[derive(Debug)]
pub struct WayOut {
    _etc: WritableEtc,
    _tunnels: Option<Tunnels>,
    _machine: Machine,
}

impl WayOut {
    /// Makes it; an error says why it can't be had here.
    pub fn new() -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has_pasta = std::env::split_paths(&path).any(|directory| directory.join("pasta").exists());
        ensure!(has_pasta, "there is no pasta (package passt)");
        let tunnels = Tunnels::new().with_context(|| format!("failed to make {TUN}"))?;
        let machine = Machine::new(DIRECTORY)?;
        machine.is_the_way_out()?;
        let address = ADDRESS.parse()?;
        machine.in_its_network(|| servers::start(address))??;
        let etc = WritableEtc::new()?;
        etc.write("resolv.conf", &format!("nameserver {ADDRESS}\n"))?;
        Ok(Self { _etc: etc, _tunnels: tunnels, _machine: machine })
    }
}

impl Drop for WayOut {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(DIRECTORY);
    }
}

/// The device in a directory of the world's own. udev lets everybody open it, and not every machine has udev.
#[derive(Debug)]
struct Tunnels;

impl Tunnels {
    fn new() -> Result<Option<Self>> {
        if fs::metadata(TUN).is_ok_and(|tun| tun.mode() & 0o006 == 0o006) {
            return Ok(None);
        }
        let directory = Path::new(TUN).parent().context("no directory")?;
        ensure!(directory.is_dir(), "the machine has no {}", directory.display());
        mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))?;
        let made = Self;
        // The number is the kernel's for it (Documentation/admin-guide/devices.txt).
        mknod(TUN, SFlag::S_IFCHR, Mode::empty(), makedev(10, 200))?;
        fs::set_permissions(TUN, fs::Permissions::from_mode(0o666))?;
        fs::File::options().read(true).write(true).open(TUN)?;
        Ok(Some(made))
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        let directory = Path::new(TUN).parent().unwrap_or(Path::new(TUN));
        let _ = umount2(directory, MntFlags::MNT_DETACH);
    }
}
