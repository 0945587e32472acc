//! Runs the tests of a binary, and does not count those as passed that could not run.
//!
//! The standard harness knows only tests that pass and tests that fail. Here one that calls [`skip`](crate::skip) is
//! listed as ignored, with the reason, and the last lines say once more what was not run and why.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{UnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

pub use inventory::submit;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// A test, as [`test`](crate::test) notes it.
#[derive(Debug)]
pub struct Test {
    /// Its `module_path!`.
    pub module: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it does.
    pub run: fn(),
    /// What it must panic with, where it must.
    pub panic: Option<&'static str>,
}

inventory::collect!(Test);

thread_local! {
    /// Why the test that runs on this thread could not run.
    static SKIPPED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What was not run, by reason.
static NOT_RUN: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

/// Notes that this thread's test cannot run.
pub(crate) fn note_skip(why: &str) {
    SKIPPED.set(Some(why.to_owned()));
}

/// Runs all tests of this binary that the arguments choose, says what was not run, and ends the process.
pub fn main() -> ! {
    let arguments = Arguments::from_args();
    let tests = inventory::iter::<Test>.into_iter().map(|test| {
        let name = test.full_name();
        Trial::ignorable_test(name.clone(), move || run(test, &name))
    });
    let conclusion = libtest_mimic::run(&arguments, tests.collect());
    for (why, tests) in &*NOT_RUN.lock().unwrap_or_else(PoisonError::into_inner) {
        eprintln!("NOT RUN: {} tests: {why}\n    {}", tests.len(), tests.join("\n    "));
    }
    conclusion.exit();
}

impl Test {
    /// Its name within the binary, as the standard harness gives it.
    fn full_name(&self) -> String {
        match self.module.split_once("::") {
            Some((_, module)) => format!("{module}::{}", self.name),
            None => self.name.to_owned(),
        }
    }
}

fn run(test: &'static Test, name: &str) -> Result<Completion, Failed> {
    // A thread of its own, whose name says which test it is where it panics.
    let (run, title) = (test.run, name.to_owned());
    let thread = std::thread::Builder::new().name(title).spawn(move || {
        let outcome = outcome_of(run);
        (outcome, SKIPPED.take())
    });
    let thread = thread.map_err(|error| format!("no thread: {error}"))?;
    let (outcome, skipped) = thread.join().map_err(|_| "the test's thread panicked")?;
    match (outcome, test.panic) {
        (Err(text), None) => Err(text.into()),
        (Err(text), Some(wanted)) if text.contains(wanted) => Ok(Completion::Completed),
        (Err(text), Some(wanted)) => {
            Err(format!("panicked with {text:?}, not with {wanted:?}").into())
        }
        (Ok(()), Some(wanted)) if skipped.is_none() => {
            Err(format!("did not panic with {wanted:?}").into())
        }
        (Ok(()), _) => Ok(match skipped {
            None => Completion::Completed,
            Some(why) => {
                let mut not_run = NOT_RUN.lock().unwrap_or_else(PoisonError::into_inner);
                not_run.entry(why.clone()).or_default().push(name.to_owned());
                Completion::ignored_with(why)
            }
        }),
    }
}

/// What a test panicked with.
fn outcome_of(run: impl FnOnce() + UnwindSafe) -> Result<(), String> {
    catch_unwind(run).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a value that is no text".to_owned())
    })
}
