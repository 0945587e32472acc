//! What `tracing` is told. One test, alone in its process: who subscribes in one thread is seen in all.
#![cfg(feature = "tracing")]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringtap::Capture;
use ringtap_lab::namespace;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

ringtap_lab::test_binary!();

#[ringtap_lab::test]
fn tracing_is_told_of_openings_links_and_ends() {
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    struct Text(String);

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }

    impl Subscriber for Told {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            let mut text = Text(format!("span {}", attributes.metadata().name()));
            attributes.record(&mut text);
            self.0.lock().unwrap().push(text.0);
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut text = Text(event.metadata().level().to_string());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let told = Told::default();
    tracing::subscriber::with_default(told.clone(), || {
        let options = Capture::builder().interface(&veth.right).block_timeout_ms(2);
        let mut capture = options.block_size(1 << 16).block_count(8).build().unwrap();
        veth.down();
        while !told.0.lock().unwrap().iter().any(|text| text.contains("went down")) {
            assert!(capture.next_batch_timeout(Duration::from_millis(20)).unwrap().is_none());
        }
        veth.delete();
        while capture.next_batch_timeout(Duration::from_millis(20)).is_ok() {}
        ringtap::executor::block_on(ringtap::time::sleep(Duration::from_millis(1)));
        Capture::open("nowhere0").unwrap_err();
    });
    let told = told.0.lock().unwrap().join("\n");
    for expected in [
        "span open what=\"capture\" interface=\"right0\"",
        "DEBUG message=opened",
        "INFO message=the link went down interface=\"right0\"",
        "WARN message=the interface was removed interface=\"right0\"",
        "DEBUG message=a reactor was attached backend=Ok(",
        "span open what=\"capture\" interface=\"nowhere0\"",
    ] {
        assert!(told.contains(expected), "{expected}:\n{told}");
    }
    assert_eq!(told.matches("message=opened").count(), 1, "{told}");
}
