//! What a VM, a migration and what stands against one look like: JSON with keys that stay, and texts.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use sterna_proto::migrator::{
    ExamineReply, KnownVm, MigrationEnd, MigrationPhase, MigrationProgress, MigrationReport, Prediction,
};

use crate::call::if_any;
use crate::console::text::about;

/// A VM, as its host's migrator knows it.
#[derive(Serialize)]
pub(super) struct VmView {
    pub(super) name: String,
    qmp: String,
    pub(super) volumes: Vec<String>,
    /// As QEMU calls it; nothing where that does not answer, or is not asked because the VM moves.
    state: Option<String>,
    /// The one that is under way.
    pub(super) migration: Option<ProgressView>,
    /// The last one that has ended.
    pub(super) last: Option<ReportView>,
}

impl From<KnownVm> for VmView {
    fn from(vm: KnownVm) -> Self {
        let KnownVm { name, qmp, volumes, state, migration, last } = vm;
        Self {
            name,
            qmp,
            volumes,
            state: if_any(state),
            migration: migration.map(ProgressView::from),
            last: last.map(ReportView::from),
        }
    }
}

impl VmView {
    /// What QEMU says of it, or why it says nothing, for people.
    pub(super) fn state_text(&self) -> &str {
        match &self.state {
            Some(state) => state,
            None if self.migration.is_some() => "moving",
            // Of one that has left, only how it did is known.
            None if self.qmp.is_empty() => "not here any more",
            None => "QEMU does not answer",
        }
    }

    /// All but its last migration, for people.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("VM", self.name.clone()),
            ("state", self.state_text().to_owned()),
            ("volumes", self.volumes.join(", ")),
            ("control socket", self.qmp.clone()),
            ("migration", self.migration.as_ref().map(ToString::to_string).unwrap_or_default()),
        ];
        facts.retain(|(_, value)| !value.is_empty());
        facts
    }
}

/// How far a migration is.
#[derive(Serialize)]
pub(super) struct ProgressView {
    site: String,
    phase: Phase,
    memory_bytes: u64,
    memory_left_bytes: u64,
    sent_bytes: u64,
    brought_bytes: u64,
    /// Nothing where it is not known yet, as below.
    bytes_per_second: Option<u64>,
    predicted_pause_us: Option<u64>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Preparing,
    Bringing,
    Switching,
    Undoing,
}

impl From<MigrationProgress> for ProgressView {
    fn from(progress: MigrationProgress) -> Self {
        let phase = match progress.phase() {
            MigrationPhase::Preparing => Phase::Preparing,
            MigrationPhase::Bringing => Phase::Bringing,
            MigrationPhase::Switching => Phase::Switching,
            MigrationPhase::Undoing => Phase::Undoing,
        };
        Self {
            site: progress.site,
            phase,
            memory_bytes: progress.memory_bytes,
            memory_left_bytes: progress.memory_left_bytes,
            sent_bytes: progress.sent_bytes,
            brought_bytes: progress.brought_bytes,
            bytes_per_second: unless_zero(progress.bytes_per_second),
            predicted_pause_us: unless_zero(progress.predicted_pause_us),
        }
    }
}

impl ProgressView {
    /// Where to, and what is done for it: `to chi, bringing`.
    pub(super) fn summary(&self) -> String {
        let phase = match self.phase {
            Phase::Preparing => "preparing",
            Phase::Bringing => "bringing",
            Phase::Switching => "switching",
            Phase::Undoing => "undoing",
        };
        format!("to {}, {phase}", self.site)
    }
}

/// The summary, and how far it is, as far as that is known.
impl fmt::Display for ProgressView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        if self.memory_bytes > 0 {
            write!(f, ": {} of {} memory left", about(self.memory_left_bytes), about(self.memory_bytes))?;
            write!(f, ", {} sent, {} of volumes brought", about(self.sent_bytes), about(self.brought_bytes))?;
        }
        if let Some(rate) = self.bytes_per_second {
            write!(f, ", {}/s", about(rate))?;
        }
        if let Some(pause) = self.predicted_pause_us {
            write!(f, ", would stand for {}", time(pause))?;
        }
        Ok(())
    }
}

/// How a migration has ended.
#[derive(Serialize)]
pub(super) struct ReportView {
    migration: String,
    vm: String,
    from_site: String,
    pub(super) site: String,
    /// Nothing where none was found.
    node: Option<String>,
    pub(super) end: End,
    pub(super) why: Option<String>,
    took_us: u64,
    stopped_us: u64,
    /// Nothing where QEMU has not said.
    downtime_us: Option<u64>,
    sent_bytes: u64,
    data_pages: u64,
    zero_pages: u64,
    other_bytes: u64,
    brought_bytes: u64,
    volumes_paused_us: u64,
    /// What storage has added to the pause; nothing where that is not known.
    waited_for_volumes_us: Option<u64>,
}

/// Where a VM runs when its migration has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    /// That is not known.
    Unknown,
    /// At the destination.
    Moved,
    /// Where it was.
    Kept,
    /// Nowhere.
    Lost,
}

impl From<MigrationReport> for ReportView {
    fn from(report: MigrationReport) -> Self {
        let end = match report.end() {
            MigrationEnd::Unknown => End::Unknown,
            MigrationEnd::Moved => End::Moved,
            MigrationEnd::Kept => End::Kept,
            MigrationEnd::Lost => End::Lost,
        };
        Self {
            migration: report.migration,
            vm: report.vm,
            from_site: report.from_site,
            site: report.site,
            node: if_any(report.node),
            end,
            why: if_any(report.why),
            took_us: report.took_us,
            stopped_us: report.stopped_us,
            downtime_us: unless_zero(report.downtime_us),
            sent_bytes: report.sent_bytes,
            data_pages: report.data_pages,
            zero_pages: report.zero_pages,
            other_bytes: report.other_bytes,
            brought_bytes: report.brought_bytes,
            volumes_paused_us: report.volumes_paused_us,
            waited_for_volumes_us: report.waited_for_volumes_us,
        }
    }
}

impl ReportView {
    /// All of it, for people; the first line, with the migration's id, begins with `name`.
    pub(super) fn facts(&self, name: &'static str) -> Vec<(&'static str, String)> {
        let runs = match self.end {
            End::Unknown => "it is not known where".to_owned(),
            End::Moved => format!("at {}", self.site),
            End::Kept => format!("where it was, at {}", self.from_site),
            End::Lost => "nowhere: its QEMU has ended".to_owned(),
        };
        let node = self.node.as_ref().map(|node| format!(", beside node {node}")).unwrap_or_default();
        let mut facts = vec![
            (name, self.migration.clone()),
            ("VM", self.vm.clone()),
            ("from", self.from_site.clone()),
            ("to", format!("{}{node}", self.site)),
            ("runs", runs),
        ];
        if let Some(why) = &self.why {
            facts.push(("why", why.clone()));
        }
        let paused = |us| unless_zero(us).map_or_else(|| "not at all".to_owned(), time);
        let waited =
            |us| if us == 0 { "not at all".to_owned() } else { format!("{} after its memory had come", time(us)) };
        let (data, zero, other) = (self.data_pages, self.zero_pages, about(self.other_bytes));
        let sent = about(self.sent_bytes);
        facts.extend([
            ("took", time(self.took_us)),
            ("stopped for", paused(self.stopped_us)),
            ("QEMU's downtime", self.downtime_us.map_or_else(|| "not said".to_owned(), time)),
            ("memory's stream", format!("{sent} sent: {data} pages with data, {zero} of zeros, {other} besides")),
            ("volumes brought", format!("{} before the handoff", about(self.brought_bytes))),
            ("volumes paused for", paused(self.volumes_paused_us)),
            ("waited for volumes", self.waited_for_volumes_us.map_or_else(|| "not known".to_owned(), waited)),
        ]);
        facts
    }
}

/// What stands against a migration.
#[derive(Serialize)]
pub(super) struct ExaminationView {
    pub(super) vm: String,
    pub(super) site: String,
    pub(super) obstacles: Vec<ObstacleView>,
    /// Nothing where it cannot be known.
    prediction: Option<PredictionView>,
}

/// What a migration would take.
#[derive(Serialize)]
struct PredictionView {
    sent_bytes: u64,
    brought_bytes: u64,
    following_bytes: u64,
    took_us: u64,
    pause_us: u64,
    is_forced: bool,
    stalls: u64,
    stall_us: u64,
    /// What it rests on.
    bytes_per_second: u64,
    round_trip_us: u64,
    memory_bytes: u64,
    dirtied_bytes_per_second: u64,
}

impl From<Prediction> for PredictionView {
    fn from(predicted: Prediction) -> Self {
        Self {
            sent_bytes: predicted.sent_bytes,
            brought_bytes: predicted.brought_bytes,
            following_bytes: predicted.following_bytes,
            took_us: predicted.took_us,
            pause_us: predicted.pause_us,
            is_forced: predicted.is_forced,
            stalls: predicted.stalls,
            stall_us: predicted.stall_us,
            bytes_per_second: predicted.bytes_per_second,
            round_trip_us: predicted.round_trip_us,
            memory_bytes: predicted.memory_bytes,
            dirtied_bytes_per_second: predicted.dirtied_bytes_per_second,
        }
    }
}

/// Lines for people.
impl fmt::Display for PredictionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_bytes, dirtied_bytes_per_second, .. } = *self;
        writeln!(
            f,
            "the link carries {}/s, with {} there and back; the VM has {} of memory and writes {}/s of it",
            about(self.bytes_per_second),
            time(self.round_trip_us),
            about(memory_bytes),
            about(dirtied_bytes_per_second)
        )?;
        let (sent, brought) = (about(self.sent_bytes), about(self.brought_bytes));
        writeln!(
            f,
            "at most {} in all: {sent} of memory, {brought} of volumes before it goes on there",
            time(self.took_us)
        )?;
        write!(f, "it would stand for about {}", time(self.pause_us))?;
        if self.is_forced {
            write!(
                f,
                ", as it writes faster than the link carries: 'sterna vm migrate --offline' sends each page once"
            )?;
        }
        write!(f, "\n{} of its volumes follow when it runs there", about(self.following_bytes))?;
        if self.stalls > 0 {
            write!(f, "; for at most {} reads of those it waits {} each", self.stalls, time(self.stall_us))?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
pub(super) struct ObstacleView {
    what: String,
    remedy: String,
}

impl ExaminationView {
    pub(super) fn new(vm: String, site: String, found: ExamineReply) -> Self {
        let obstacles = found.obstacles.into_iter();
        let obstacles = obstacles.map(|obstacle| ObstacleView { what: obstacle.what, remedy: obstacle.remedy });
        Self { vm, site, obstacles: obstacles.collect(), prediction: found.prediction.map(PredictionView::from) }
    }
}

/// A line for each obstacle, or what it would take.
impl fmt::Display for ExaminationView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.obstacles.is_empty() {
            write!(f, "nothing stands against {} going to {}", self.vm, self.site)?;
            return match &self.prediction {
                Some(prediction) => write!(f, "\n{prediction}"),
                None => Ok(()),
            };
        }
        let lines: Vec<_> = self.obstacles.iter().map(|found| format!("{}: {}", found.what, found.remedy)).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// How long, for people: `85.2ms`.
fn time(us: u64) -> String {
    format!("{:.1?}", Duration::from_micros(us))
}

/// A number of a message, which is 0 where it is not known.
fn unless_zero(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};
    use sterna_proto::migrator::Obstacle;

    use super::*;

    fn report() -> MigrationReport {
        MigrationReport {
            migration: "00ff".to_owned(),
            vm: "web-1".to_owned(),
            from_site: "ams".to_owned(),
            site: "chi".to_owned(),
            node: "chi-1".to_owned(),
            end: MigrationEnd::Moved.into(),
            why: String::new(),
            took_us: 12_300_000,
            stopped_us: 85_200,
            downtime_us: 0,
            sent_bytes: 3 << 29,
            data_pages: 7,
            zero_pages: 9,
            other_bytes: 2048,
            brought_bytes: 1 << 20,
            volumes_paused_us: 42_000,
            waited_for_volumes_us: Some(0),
        }
    }

    #[test]
    fn a_report_reads_as_facts() {
        let texts = [
            ("migration", "00ff"),
            ("VM", "web-1"),
            ("from", "ams"),
            ("to", "chi, beside node chi-1"),
            ("runs", "at chi"),
            ("took", "12.3s"),
            ("stopped for", "85.2ms"),
            ("QEMU's downtime", "not said"),
            ("memory's stream", "1.5 GiB sent: 7 pages with data, 9 of zeros, 2 KiB besides"),
            ("volumes brought", "1 MiB before the handoff"),
            ("volumes paused for", "42.0ms"),
            ("waited for volumes", "not at all"),
        ];
        assert_eq!(ReportView::from(report()).facts("migration"), texts.map(|(name, text)| (name, text.to_owned())));
    }

    #[test]
    fn a_migration_that_was_given_up_says_why_and_where_the_vm_runs() {
        let why = "the link is cut".to_owned();
        let kept = MigrationReport { end: MigrationEnd::Kept.into(), why, stopped_us: 0, ..report() };
        let facts = ReportView::from(kept).facts("last migration");
        for (name, text) in
            [("runs", "where it was, at ams"), ("why", "the link is cut"), ("stopped for", "not at all")]
        {
            assert!(facts.contains(&(name, text.to_owned())), "{name}: {facts:?}");
        }
    }

    #[test]
    fn a_report_for_programs_has_all_of_it() {
        let expected = json!({ "migration": "00ff", "vm": "web-1", "from_site": "ams", "site": "chi", "node": "chi-1",
            "end": "moved", "why": null, "took_us": 12_300_000, "stopped_us": 85_200, "downtime_us": null,
            "sent_bytes": 1_610_612_736, "data_pages": 7, "zero_pages": 9, "other_bytes": 2048,
            "brought_bytes": 1_048_576, "volumes_paused_us": 42_000, "waited_for_volumes_us": 0 });
        assert_eq!(to_value(ReportView::from(report())).expect("JSON"), expected);
    }

    #[test]
    fn progress_says_no_more_than_is_known() {
        let begun = MigrationProgress { site: "chi".to_owned(), ..Default::default() };
        assert_eq!(ProgressView::from(begun.clone()).to_string(), "to chi, preparing");
        let progress = MigrationProgress {
            phase: MigrationPhase::Bringing.into(),
            memory_bytes: 4 << 30,
            memory_left_bytes: 512 << 20,
            sent_bytes: 7 << 29,
            bytes_per_second: 10 << 20,
            predicted_pause_us: 140_000,
            ..begun
        };
        let view = ProgressView::from(progress);
        let far = "512 MiB of 4 GiB memory left, 3.5 GiB sent, 0 bytes of volumes brought, 10 MiB/s";
        assert_eq!(view.to_string(), format!("to chi, bringing: {far}, would stand for 140.0ms"));
        assert_eq!(to_value(view).expect("JSON")["phase"], "bringing");
    }

    #[test]
    fn each_obstacle_is_told_with_its_remedy() {
        let found = |obstacles| {
            ExaminationView::new("web-1".to_owned(), "chi".to_owned(), ExamineReply { obstacles, prediction: None })
        };
        assert_eq!(found(Vec::new()).to_string(), "nothing stands against web-1 going to chi");
        let obstacle = |what: &str, remedy: &str| Obstacle { what: what.to_owned(), remedy: remedy.to_owned() };
        let view = found(vec![obstacle("no QEMU", "install it"), obstacle("no room", "make some")]);
        assert_eq!(view.to_string(), "no QEMU: install it\nno room: make some");
        let expected = json!({ "vm": "web-1", "site": "chi", "obstacles": [
            { "what": "no QEMU", "remedy": "install it" }, { "what": "no room", "remedy": "make some" } ],
            "prediction": null });
        assert_eq!(to_value(view).expect("JSON"), expected);
    }

    #[test]
    fn what_it_would_take_is_told_with_what_that_rests_on() {
        let prediction = Prediction {
            sent_bytes: 1 << 30,
            brought_bytes: 100 << 20,
            following_bytes: 3 << 30,
            took_us: 95_000_000,
            pause_us: 90_000,
            stalls: 12,
            stall_us: 110_500,
            bytes_per_second: 12 << 20,
            round_trip_us: 100_000,
            memory_bytes: 1 << 30,
            ..Default::default()
        };
        let found = ExamineReply { obstacles: Vec::new(), prediction: Some(prediction) };
        let view = ExaminationView::new("web-1".to_owned(), "chi".to_owned(), found.clone());
        let lines = "nothing stands against web-1 going to chi
the link carries 12 MiB/s, with 100.0ms there and back; the VM has 1 GiB of memory and writes 0 bytes/s of it
at most 95.0s in all: 1 GiB of memory, 100 MiB of volumes before it goes on there
it would stand for about 90.0ms
3 GiB of its volumes follow when it runs there; for at most 12 reads of those it waits 110.5ms each";
        assert_eq!(view.to_string(), lines);
        assert_eq!(to_value(&view).expect("JSON")["prediction"]["pause_us"], 90_000);
        let forced = Prediction { is_forced: true, ..prediction };
        let found = ExamineReply { prediction: Some(forced), ..found };
        let view = ExaminationView::new("web-1".to_owned(), "chi".to_owned(), found);
        assert!(view.to_string().contains("--offline"), "{view}");
    }

    #[test]
    fn a_vm_without_a_state_says_why_it_has_none() {
        let known = KnownVm { name: "web-1".to_owned(), qmp: "/run/qmp".to_owned(), ..Default::default() };
        let text = |vm: KnownVm| VmView::from(vm).state_text().to_owned();
        assert_eq!(text(known.clone()), "QEMU does not answer");
        assert_eq!(text(KnownVm { state: "paused".to_owned(), ..known.clone() }), "paused");
        assert_eq!(text(KnownVm { migration: Some(MigrationProgress::default()), ..known.clone() }), "moving");
        let left = KnownVm { qmp: String::new(), last: Some(report()), ..known };
        let facts = [("VM", "web-1".to_owned()), ("state", "not here any more".to_owned())];
        assert_eq!(VmView::from(left).facts(), facts);
    }

    #[test]
    fn a_vm_for_programs_has_all_that_is_known() {
        let vm = KnownVm { name: "web-1".to_owned(), volumes: vec!["web-1".to_owned()], ..Default::default() };
        let expected = json!({ "name": "web-1", "qmp": "", "volumes": ["web-1"], "state": null, "migration": null,
            "last": null });
        assert_eq!(to_value(VmView::from(vm)).expect("JSON"), expected);
    }
}
