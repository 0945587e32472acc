//! glommio's errors in futures that return ringtap's.

use std::error::Error as StdError;
use std::{fmt, io};

use glommio::GlommioError;
use ringtap::Error;

/// Carries an error of glommio's through a shard, with the operating system's error as its source.
///
/// glommio's errors are not `Send`, so `?` cannot convert them by itself where a future returns `ringtap::Result`:
///
/// ```no_run
/// # async fn f() -> ringtap::Result<()> {
/// let listener = glommio::net::TcpListener::bind("127.0.0.1:7100").map_err(ringtap_glommio::error)?;
/// # Ok(())
/// # }
/// ```
pub fn error<T>(error: GlommioError<T>) -> Error {
    let message = error.to_string();
    let source = match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => {
            Some(source)
        }
        _ => None,
    };
    Error::Other(Box::new(Failed { message, source }))
}

#[derive(Debug)]
struct Failed {
    message: String,
    source: Option<io::Error>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Failed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EADDRINUSE: i32 = 98;

    #[test]
    fn the_operating_systems_error_is_the_source() {
        let refused = || io::Error::from_raw_os_error(EADDRINUSE);
        let errors = [
            GlommioError::<()>::IoError(refused()),
            GlommioError::EnhancedIoError {
                source: refused(),
                op: "bind",
                path: None,
                fd: Some(3),
            },
        ];
        for of_glommio in errors {
            let text = of_glommio.to_string();
            let error = error(of_glommio);
            assert_eq!(error.to_string(), text);
            let Error::Other(carried) = &error else { panic!("{error:?}") };
            let source = carried.source().and_then(|source| source.downcast_ref::<io::Error>());
            assert_eq!(source.and_then(io::Error::raw_os_error), Some(EADDRINUSE));
        }
        let closed = error(GlommioError::<u8>::TimedOut(std::time::Duration::from_secs(1)));
        let Error::Other(carried) = &closed else { panic!("{closed:?}") };
        assert!(carried.source().is_none());
    }
}
