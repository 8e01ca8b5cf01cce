//! Partitions of deleted topics on their way out. A directory is set aside, for the control thread to remove, once no job of
//! its log goes by a path in it any more: nothing may be written into the directory of a new topic of that name.

use std::path::PathBuf;

use super::Map;
use crate::ids::JobOwner;
use crate::io::disk::{Disk, Job};
use crate::storage::Log;

struct Leaving {
    from: PathBuf,
    to: PathBuf,
    /// Jobs of the log that go by a path.
    jobs: u32,
}

/// All partitions of this core that are leaving, by the name their logs had for the disk.
#[derive(Default)]
pub(super) struct Leavings(Map<JobOwner, Leaving>);

impl Leavings {
    /// A log is given up; its directory is to be named `to`.
    pub fn begin(&mut self, disk: &mut dyn Disk, owner: JobOwner, log: &Log, to: PathBuf) {
        let leaving = Leaving { from: log.dir().to_path_buf(), to, jobs: log.path_jobs() };
        if leaving.jobs == 0 {
            leaving.set_aside(disk, owner);
        }
        self.0.insert(owner, leaving);
    }

    /// A job ended. True: it was that of a log that is leaving.
    pub fn job_done(&mut self, disk: &mut dyn Disk, owner: JobOwner, job: &Job, result: &std::io::Result<()>) -> bool {
        let Some(leaving) = self.0.get_mut(&owner) else { return false };
        match job {
            Job::Rename { from, .. } if *from == leaving.from => {
                if let Err(error) = result {
                    log::warn!("{}: the directory cannot be set aside: {error}", from.display());
                }
                self.0.remove(&owner);
            }
            job if job.goes_by_path() => {
                leaving.jobs -= 1;
                if leaving.jobs == 0 {
                    leaving.set_aside(disk, owner);
                }
            }
            _ => {}
        }
        true
    }

    /// Is none on its way?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Leaving {
    fn set_aside(&self, disk: &mut dyn Disk, owner: JobOwner) {
        disk.start(owner, Job::Rename { from: self.from.clone(), to: self.to.clone() });
    }
}
