//! A whole program with one dependency: counts packets and bytes of an interface, once a second.
//!
//! ```sh
//! cargo run --release -p builtin-binary -- eth0
//! cargo tree -p builtin-binary -e normal          # 10 crates, ringtap and its own included
//! ls -l target/release/builtin-binary
//! ```

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringtap::{AsyncCapture, executor, time};

fn main() -> ringtap::Result<()> {
    let Some(interface) = std::env::args().nth(1) else {
        eprintln!("usage: builtin-binary INTERFACE");
        return Ok(());
    };
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let seen = Rc::new(Cell::new((0_u64, 0_u64)));
        let shown = Rc::clone(&seen);
        let _showing = executor::spawn_local(async move {
            let mut seconds = time::interval(Duration::from_secs(1));
            loop {
                seconds.tick().await;
                let (packets, bytes) = shown.take();
                println!("{packets} packets, {bytes} bytes");
            }
        });
        while let Some(batch) = capture.next_batch().await? {
            let (mut packets, mut bytes) = seen.get();
            for packet in &batch {
                packets += 1;
                bytes += packet.original_len() as u64;
            }
            seen.set((packets, bytes));
        }
        Ok(())
    })
}
