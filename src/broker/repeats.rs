//! Warnings and errors that repeat: the first is logged, later ones of the same kind are counted, and after some seconds one line reports their
//! number.
//!
//! A full disk or an offline directory causes the same error for each partition and each request. An operator must see it once, and
//! see that it continues.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How long repeated events are counted before the count is logged.
pub(super) const COUNTED_FOR: Duration = Duration::from_secs(10);
/// Modules whose warnings are each about another setting, and are logged once per start: they are not counted as repeats.
const EACH_COUNTS: &[&str] = &["dlog::broker::config", "dlog::broker::listeners"];
/// The maximum number of kinds that are counted at once; events of further kinds are always logged.
const KINDS_MAX: usize = 1000;

/// Lets the first event of a kind pass and counts the others. Events are of the same kind if they come from the same place in the code and have
/// the same message. Their fields may differ, and the last event's fields are logged with the count. Only warnings and errors are counted.
#[derive(Debug, Clone)]
pub(super) struct Repeats(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    counted_for: Duration,
    kinds: Mutex<HashMap<(Identifier, String), Kind>>,
    /// Notified of each counted event; one pending notification is enough.
    counted: SyncSender<()>,
}

/// The events of one kind since the last one that was logged.
#[derive(Debug)]
struct Kind {
    level: Level,
    since: Instant,
    more: u64,
    /// The fields of the last event.
    last: String,
}

impl Repeats {
    /// Counts events for this long; the receiver is notified when an event is counted.
    pub(super) fn new(counted_for: Duration) -> (Repeats, Receiver<()>) {
        let (counted, is_counted) = sync_channel(1);
        (Repeats(Arc::new(Shared { counted_for, kinds: Mutex::default(), counted })), is_counted)
    }

    /// Logs the counts at the end of their interval, on a separate thread that runs as long as the process. It sleeps while nothing repeats.
    pub(super) fn report_in_background(self, is_counted: Receiver<()>) {
        let report = move || {
            while is_counted.recv().is_ok() {
                std::thread::sleep(self.0.counted_for);
                self.report(Instant::now());
            }
        };
        // Without the thread only the counts are not logged.
        let _ = std::thread::Builder::new().name("log-repeats".into()).spawn(report);
    }

    /// Whether an event is logged.
    fn judge(&self, kind: (Identifier, String), level: Level, fields: String, now: Instant) -> bool {
        let mut kinds = self.kinds();
        let Some(known) = kinds.get_mut(&kind) else {
            if kinds.len() >= KINDS_MAX {
                kinds.retain(|_, kind| kind.more > 0 || now < kind.since + self.0.counted_for);
            }
            if kinds.len() < KINDS_MAX {
                kinds.insert(kind, Kind { level, since: now, more: 0, last: String::new() });
            }
            return true;
        };
        if known.more == 0 && now >= known.since + self.0.counted_for {
            known.since = now;
            return true;
        }
        known.more += 1;
        known.last = fields;
        drop(kinds);
        // If a notification is already pending, this one is not needed.
        let _ = self.0.counted.try_send(());
        false
    }

    /// Logs the counts whose interval has ended.
    fn report(&self, now: Instant) {
        let mut due = Vec::new();
        self.kinds().retain(|(_, message), kind| {
            let is_due = now >= kind.since + self.0.counted_for;
            if is_due && kind.more > 0 {
                let seconds = now.duration_since(kind.since).as_secs();
                due.push((kind.level, std::mem::take(&mut kind.more), seconds, message.clone(), std::mem::take(&mut kind.last)));
                kind.since = now;
                return true;
            }
            !is_due
        });
        // Logged after the lock is released, because these lines are events too.
        for (level, more, seconds, message, last) in due {
            if level == Level::ERROR {
                error!(last, "{more} more in {seconds} s: {message}");
            } else {
                warn!(last, "{more} more in {seconds} s: {message}");
            }
        }
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<(Identifier, String), Kind>> {
        self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // The counts themselves are never counted.
        if *metadata.level() > Level::WARN || metadata.target() == module_path!() || EACH_COUNTS.contains(&metadata.target()) {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        self.judge((metadata.callsite(), text.message), *metadata.level(), text.fields, Instant::now())
    }
}

/// The message of an event, and its other fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name if self.fields.is_empty() => write!(self.fields, "{name}={value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Lines that were logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(bytes).unwrap().lines().map(str::to_string).collect()
        }
    }

    /// The lines that are logged while `work` runs.
    fn logged(work: impl FnOnce(&Repeats, &Lines)) {
        let (lines, (repeats, _counted)) = (Lines::default(), Repeats::new(COUNTED_FOR));
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber.with(repeats.clone()), || work(&repeats, &lines));
    }

    fn fail(partition: i32) {
        error!(partition, error = %"no space", "the partition could not be opened");
    }

    #[test]
    fn what_repeats_is_logged_once_and_then_counted() {
        logged(|repeats, lines| {
            (0..98).for_each(fail);
            warn!("something else");
            for _ in 0..3 {
                tracing::info!("this is no warning");
            }
            let said = lines.take();
            assert_eq!(said.len(), 5, "{said:?}");
            assert!(
                said[0].contains("ERROR") && said[0].contains("the partition could not be opened partition=0 error=no space"),
                "{said:?}"
            );
            repeats.report(Instant::now());
            assert_eq!(lines.take(), Vec::<String>::new(), "not yet");
            let later = Instant::now() + COUNTED_FOR;
            repeats.report(later);
            let said = lines.take();
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].contains("ERROR") && said[0].contains("97 more in 10 s: the partition could not be opened"), "{said:?}");
            assert!(said[0].contains("partition=97"), "the last of them: {said:?}");
            // The error continues: only a count is logged now and then.
            (0..5).for_each(fail);
            assert_eq!(lines.take(), Vec::<String>::new());
            repeats.report(later + COUNTED_FOR);
            assert!(lines.take()[0].contains("5 more in 10 s"));
            // The error has ended: nothing is logged, and the next event counts as the first one.
            repeats.report(later + 2 * COUNTED_FOR);
            assert_eq!(lines.take(), Vec::<String>::new());
            fail(7);
            assert!(lines.take()[0].contains("partition=7"));
        });
    }

    #[test]
    fn events_with_other_messages_are_not_counted_together() {
        logged(|repeats, lines| {
            for at in 0..KINDS_MAX + 5 {
                warn!("message {at}");
            }
            assert_eq!(lines.take().len(), KINDS_MAX + 5);
            assert_eq!(repeats.kinds().len(), KINDS_MAX);
        });
    }
}
