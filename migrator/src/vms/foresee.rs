//! What a migration would take, by what its VM and its link do now.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use sterna_proto::migrator as wire;
use tokio::time::sleep;

use super::ready::Ready;
use super::{Order, VmError, Vms, silent};
use crate::converge::sent_in;
use crate::predict::{Known, Prediction, predict};
use crate::probe::{self, Link};
use crate::qmp::Commands;
use crate::volumes::FoundMigrator;

impl Vms {
    /// Measures the VM and the link, which takes some seconds, and says what follows from that.
    pub(super) async fn foresee(
        &self,
        asked: &Order,
        mut ready: Ready,
        found: &FoundMigrator,
    ) -> Result<wire::Prediction, VmError> {
        let used = self.node.use_of(&ready.volumes, &asked.site).await?;
        let Some(qmp) = ready.monitor.commands().await? else { return Err(VmError::NoProcess(asked.vm.clone())) };
        let peer = self.peer(found);
        let (memory, link) = tokio::join!(memory(qmp), probe::measure(&peer));
        let ((memory_bytes, dirtied_per_second), link) =
            (memory?, link.map_err(|status| silent(&found.place, status))?);
        let Link { rate, round_trip } = link;
        let hot_bytes = used.hot_bytes;
        let is_offline = asked.is_offline;
        let known = Known { memory_bytes, dirtied_per_second, hot_bytes, rate, round_trip, is_offline };
        let Prediction { sent_bytes, took, pause, is_forced } = predict(&known);
        Ok(wire::Prediction {
            sent_bytes,
            brought_bytes: hot_bytes,
            following_bytes: used.lacking_bytes.saturating_sub(hot_bytes),
            took_us: micros(took),
            pause_us: micros(pause),
            is_forced,
            stalls: used.warm_bytes.div_ceil(CHUNK_BYTES),
            stall_us: micros(round_trip + sent_in(CHUNK_BYTES, rate)),
            bytes_per_second: rate,
            round_trip_us: micros(round_trip),
            memory_bytes,
            dirtied_bytes_per_second: dirtied_per_second,
        })
    }
}

/// How much memory a VM has, and how fast it writes it, in bytes and bytes a second.
async fn memory(qmp: &Commands) -> Result<(u64, u64), VmError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Summary {
        base_memory: u64,
        #[serde(default)]
        plugged_memory: u64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Rate {
        status: String,
        /// In MiB a second.
        #[serde(default)]
        dirty_rate: Option<u64>,
    }
    let summary: Summary = qmp.ask_for("query-memory-size-summary", json!({})).await?;
    qmp.measure_dirty_rate(MEASURED_SECONDS).await?;
    let mut rate = None;
    for _ in 0..LOOKS {
        sleep(BETWEEN_LOOKS).await;
        let measured: Rate = qmp.ask_for("query-dirty-rate", json!({})).await?;
        if measured.status == "measured" {
            rate = measured.dirty_rate;
            break;
        }
    }
    Ok((summary.base_memory + summary.plugged_memory, rate.unwrap_or(0) << 20))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What is fetched at once for a guest that waits, on average (design section 4).
const CHUNK_BYTES: u64 = 128 << 10;

/// For how long it is looked what a VM writes: the least that QEMU knows.
const MEASURED_SECONDS: u64 = 1;

/// Until QEMU has found out; a host that is busy takes longer than it was told.
const LOOKS: usize = 50;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
