//! Messages of HTTP, DNS and TLS, printed as they are complete.

use std::io::{self, Write};
use std::process::ExitCode;

use futures_util::{Stream, StreamExt};
use ringtap::flow::dns::{DnsContent, DnsMessage};
use ringtap::flow::extract::FiveTupleKey;
use ringtap::flow::http::HttpMessage;
use ringtap::flow::tls::TlsMessage;
use ringtap::flow::{AppMessage, FlowExt, Orientation, Protocols, SessionEvent};
use ringtap::interface::LocalNames;
use ringtap::{AsyncCapture, BpfFilter, Capture, executor};

use crate::cli::MessagesArgs;
use crate::say::{Plain, note};
use crate::sink::Outcome;

type Event = SessionEvent<FiveTupleKey, AppMessage>;

pub(super) fn run(args: &MessagesArgs) -> Outcome<ExitCode> {
    let from = &args.from;
    if let Some(file) = &from.read {
        let flows = from.source(file)?.flow_stream(from.extractor());
        let events = flows.protocol_stream(Protocols::well_known());
        executor::block_on(tell(events, args.json, false))?;
        return Ok(ExitCode::SUCCESS);
    }
    let interface = from.which.interface()?;
    let mut options = Capture::builder().interface(interface).promiscuous(true);
    if let Some(filter) = &from.which.filter(false)? {
        options = options.filter(BpfFilter::parse_with(filter, &LocalNames::of(interface))?);
    }
    let end = super::End::new(from.seconds)?;
    let asked = end.clone();
    let capture = options.build()?;
    executor::block_on(async {
        let mut capture = AsyncCapture::new(capture)?;
        let stop = capture.stop_handle()?;
        std::thread::spawn(move || {
            while !asked.has_come() {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            stop.stop();
        });
        let flows = capture.flow_stream(from.extractor());
        tell(flows.protocol_stream(Protocols::well_known()), args.json, true).await
    })?;
    Ok(end.code())
}

/// Prints what a stream tells; at once if others wait for it.
async fn tell(
    mut events: impl Stream<Item = ringtap::Result<Event>> + Unpin,
    is_json: bool,
    at_once: bool,
) -> Outcome<()> {
    let mut out = io::BufWriter::new(io::stdout());
    let (mut messages, mut refused, mut missing) = (0_u64, 0_u64, 0_u64);
    while let Some(event) = events.next().await {
        let event = event?;
        match &event {
            SessionEvent::Application { .. } => messages += 1,
            SessionEvent::ParserError { .. } => refused += 1,
            SessionEvent::Gap { bytes, .. } => {
                missing += bytes;
                continue;
            }
            _ => continue,
        }
        match is_json {
            true => serde_json::to_writer(&mut out, &event)?,
            false => out.write_all(line(&event).as_bytes())?,
        }
        out.write_all(b"\n")?;
        if at_once {
            out.flush()?;
        }
    }
    out.flush()?;
    note!("{messages} messages, {refused} refused, {missing} bytes missing");
    Ok(())
}

/// An event in short.
fn line(event: &Event) -> String {
    let key = event.key();
    let (text, is_forward) = match event {
        SessionEvent::Application { message, orientation, .. } => {
            (short(message), *orientation == Orientation::Forward)
        }
        SessionEvent::ParserError { fault, .. } => (fault.to_string(), true),
        _ => (String::new(), true),
    };
    let (from, to) = if is_forward { (key.a(), key.b()) } else { (key.b(), key.a()) };
    format!("{from} > {to}  {}", Plain(&text))
}

fn short(message: &AppMessage) -> String {
    match message {
        AppMessage::Http(HttpMessage::Request(request)) => {
            let path = String::from_utf8_lossy(request.path());
            format!("{} {}{path}", request.method(), request.host().unwrap_or_default())
        }
        AppMessage::Http(HttpMessage::Response(response)) => {
            format!("{} {} bytes", response.status(), response.body_len())
        }
        AppMessage::Dns(DnsMessage::Query(query)) => format!("asks for {}", names(query)),
        AppMessage::Dns(DnsMessage::Response(response)) => {
            let answers: Vec<String> =
                response.answers.iter().map(|record| record.data.to_string()).collect();
            format!("{} {}: {}", names(response), response.rcode, answers.join(", "))
        }
        AppMessage::Tls(TlsMessage::ClientHello(hello)) => {
            format!("{} hello to {} {}", hello.version(), hello.sni().unwrap_or("-"), hello.ja4())
        }
        AppMessage::Tls(TlsMessage::ServerHello(hello)) => {
            format!("{} hello, cipher suite {:#06x}", hello.version(), hello.cipher_suite)
        }
        AppMessage::Tls(TlsMessage::Certificate(chain)) => {
            let subjects: Vec<&str> = chain.iter().map(|one| one.subject.as_str()).collect();
            format!("certificates: {}", subjects.join("; "))
        }
        AppMessage::Tls(TlsMessage::Alert(alert)) => {
            format!("alert {} {}", alert.level, alert.description)
        }
        other => format!("{other:?}"),
    }
}

fn names(content: &DnsContent) -> String {
    let names: Vec<&str> = content.questions.iter().map(|one| one.name.as_str()).collect();
    names.join(" ")
}
