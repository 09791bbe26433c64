//! Work on trees, which may take long, while somebody waits for it.

use tokio::task::{JoinError, JoinHandle};

use super::{Build, Gone};
use crate::control::message::ToDaemon;
use crate::daemon::pump;
use crate::publish::Interrupt;

impl Build<'_> {
    /// Waits for work that looks at `interrupt`. It is cancelled when the front end goes, or when the daemon is stopped, and
    /// waited for even then: as long as something works for a build, the build keeps its place. Also tells whether the
    /// front end is still there.
    pub(super) async fn finish<T>(
        &mut self,
        interrupt: &Interrupt,
        mut work: JoinHandle<T>,
    ) -> (Result<T, JoinError>, Result<(), Gone>) {
        let mut mode = self.daemon.mode.subscribe();
        let mut stopping = false;
        let mut still_here = Ok(());
        loop {
            tokio::select! {
                result = &mut work => return (result, still_here),
                // It has nothing to say before the end.
                _ = self.connection.reader.next::<ToDaemon>(), if still_here.is_ok() => {
                    still_here = Err(Gone);
                }
                () = pump::stopping(&mut mode), if !stopping => stopping = true,
            }
            interrupt.cancel();
        }
    }
}
