//! Every packet on disk, without a copy.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use ringtap::interface::LocalNames;
use ringtap::pcap::FileInterface;
use ringtap::record::{OnDiskError, RecordStats, Recorder};
use ringtap::shard::Cores;
use ringtap::{BpfFilter, Capture, Shards};

use super::{End, archive};
use crate::cli::RecordArgs;
use crate::say::{note, say};
use crate::seal::Key;
use crate::sink::Outcome;

pub(super) fn run(args: &RecordArgs) -> Outcome<ExitCode> {
    let which = &args.from.which;
    let (interface, filter) = (which.interface()?, which.filter(false)?);
    let mut options = Capture::builder().promiscuous(true).for_recording(true);
    if let Some(filter) = &filter {
        options = options.filter(BpfFilter::parse_with(filter, &LocalNames::of(interface))?);
    }
    if let Some(snap_len) = args.snap_len.filter(|bytes| *bytes > 0) {
        options = options.snap_len(snap_len);
    }
    let mut shards = Shards::builder().interface(interface).capture(options);
    if let Some(count) = args.shards {
        shards = shards.cores(Cores::First(count.into()));
    }
    std::fs::create_dir_all(&args.write)
        .map_err(|error| format!("{}: {error}", args.write.display()))?;
    let key = args.sign.as_deref().map(Key::read).transpose()?;
    let end = End::new(args.from.seconds)?;
    let (sender, ended) = mpsc::channel();
    let (name, directory) = (interface.to_owned(), args.write.clone());
    let (file_bytes, most, syncs) = (args.file_mib << 20, args.max, args.sync);
    let shards = shards.spawn(move |mut shard| {
        let (sender, filter, name) = (sender.clone(), filter.clone(), name.clone());
        let files = Recorder::builder(&directory, format!("shard{}", shard.index()));
        let mut files = files.max_bytes(file_bytes).sync(syncs).on_error(OnDiskError::DropAndRetry);
        if let Some(most) = most {
            // Two of the files are the current and the next one.
            let most = most / shard.count() as u64;
            files = files.max_bytes(file_bytes.min(most / 8).max(1 << 20)).keep_bytes(most);
        }
        async move {
            files = if name == "any" {
                files.each_interface()
            } else {
                let mut of_file = FileInterface::new(shard.capture.link_type());
                (of_file.name, of_file.filter) = (Some(name), filter);
                files.interface(of_file)
            };
            let mut recorder = files.build()?;
            let recorded = recorder.record(&mut shard.capture).await;
            if let Some(error) = recorder.take_error() {
                note!("{error}");
            }
            let stats = recorder.finish().await?;
            let _ = sender.send(stats); // it is waited for
            recorded
        }
    })?;
    note!("recording {interface} into {}", args.write.display());
    while !shards.is_finished() && !end.has_come() {
        end.wait(Duration::from_secs(1));
        seal(args, key.as_ref(), true);
        if end.is_status_asked() {
            let total = shards.stats()?.total();
            note!("{} packets, {} dropped by the kernel", total.delivered, total.drops);
        }
    }
    shards.stop();
    let total = shards.join()?.total();
    seal(args, key.as_ref(), false);
    let (mut all, mut files) = (RecordStats::default(), 0);
    for stats in ended.try_iter() {
        all.written += stats.written;
        all.lost += stats.lost;
        files += stats.files;
    }
    say!(
        "{} packets in {files} files, {} dropped by the kernel, {} could not be written",
        all.written,
        total.drops,
        all.lost
    )?;
    match all.lost {
        0 => Ok(end.code()),
        lost => {
            Err(format!("{lost} packets are in no file; make room in {}", args.write.display())
                .into())
        }
    }
}

/// Seals what is closed. That it cannot be is no reason to record no more.
fn seal(args: &RecordArgs, key: Option<&Key>, is_at_work: bool) {
    if let Some(key) = key
        && let Err(error) = archive::seal_all(&args.write, key, is_at_work)
    {
        note!("files are not sealed: {error}");
    }
}
