//! An example that runs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::Result;

/// The process of an example, which is killed if this is dropped before it has ended.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    first_line: Receiver<()>,
    /// Shows its output.
    showing: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(binary: &Path, arguments: impl Iterator<Item = String>) -> Result<Self> {
        let arguments: Vec<_> = arguments.collect();
        let name = binary.file_name().unwrap_or_default().display();
        println!("lab: running {name} {}", arguments.join(" "));
        let mut command = Command::new(binary);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        // Nobody would end it if the runner were killed.
        let die_with_runner = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec it makes one system call, and allocates nothing.
        unsafe { command.pre_exec(die_with_runner) };
        let mut child =
            command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
        let output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let (sender, first_line) = mpsc::channel();
        let showing = std::thread::spawn(move || {
            let mut sender = Some(sender);
            for line in output.lines().map_while(std::io::Result::ok) {
                // If nobody reads this any more, the example runs on.
                let _ = writeln!(std::io::stdout(), "{line}");
                let _ = sender.take().map(|sender| sender.send(()));
            }
        });
        Ok(Self { child, first_line, showing: Some(showing) })
    }

    /// Whether it has printed a line; otherwise it has ended.
    pub(crate) fn wait_for_first_line(&self, limit: Duration) -> Result<bool> {
        match self.first_line.recv_timeout(limit) {
            Ok(()) => Ok(true),
            Err(RecvTimeoutError::Disconnected) => Ok(false),
            Err(RecvTimeoutError::Timeout) => Err("the example has printed nothing".into()),
        }
    }

    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Interrupts it, like Ctrl-C.
    pub(crate) fn interrupt(&mut self) -> Result<()> {
        if self.is_running()? {
            kill_process(Pid::from_child(&self.child), Signal::INT)?;
        }
        Ok(())
    }

    /// Waits until it has ended; its exit code. Kills it when the time is up.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<ExitCode> {
        let start = Instant::now();
        while self.is_running()? {
            if start.elapsed() > limit {
                return Err(format!("the example did not end within {limit:?}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = self.child.wait()?;
        if let Some(showing) = self.showing.take() {
            showing.join().map_err(|_| "the output could not be shown")?;
        }
        let code = status.code().ok_or_else(|| status.to_string())?;
        Ok(ExitCode::from(u8::try_from(code)?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without effect on one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
