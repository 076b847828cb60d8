//! What `node init` writes into `sterna.toml`: every setting, with its default and what it means.

use std::net::SocketAddr;

/// The file for a node that other nodes reach at `listen`.
pub(crate) fn template(listen: Option<SocketAddr>) -> String {
    match listen {
        Some(address) => TEMPLATE.replace(NO_ADDRESS, &format!("listen = \"{address}\"\n")),
        None => TEMPLATE.to_owned(),
    }
}

const NO_ADDRESS: &str = "#listen = \"10.77.0.1:7400\"\n";

/// The file. All settings are commented out, each with its default.
pub(crate) const TEMPLATE: &str = r#"# The settings of this node. What is not set here has the default that is shown. They are read when the node starts.
#
# Sizes are written "512M", "20G" (powers of 1024), times "500ms", "5s", "2min".

[cluster]
# Where this node listens to the others of its cluster. Without it the node is alone. It tells the others when it starts.
#listen = "10.77.0.1:7400"

# How often the node that leads shows the others that it lives. More than the longest round trip between two nodes.
#heartbeat = "500ms"

# How long a node waits without that before it wants to lead itself: each draws a time between the two.
#election_min = "2s"
#election_max = "4s"

# How long a piece of a snapshot of the metadata may take on its way.
#snapshot = "30s"

# How long a command waits for somebody to lead before it fails.
#patience = "10s"

# How long the certificates of nodes are valid that this node signs. They are renewed when two thirds of that have passed, so a node
# may be off for a third of it. "10s" to "1825d".
#certificate_lifetime = "90d"

[nbd]
# Where NBD clients connect over TCP, such as ["10.77.0.1:10809"]; it takes [nbd.tls] and [nbd.access]. The socket nbd.sock in this
# directory is always there, for whoever its permission lets in.
#listen = []

# How many threads serve connections; 0 for one per processor. At most 256.
#lanes = 0

# TLS on the TCP addresses, which all clients there have to use. Files in PEM form; paths are absolute, or begin in this
# directory.
#[nbd.tls]
#certificate = "tls/server.crt"
#key = "tls/server.key"
# The authority that clients' certificates have to be from.
#client_ca = "tls/clients.crt"

# Which clients may attach which volumes over TCP, by a DNS name in their certificate (subjectAltName). A volume's name, or the
# beginning of names with '*' behind it. What is not given here, nobody over TCP gets, or sees in a list.
#[nbd.access]
#"web-*" = { read_write = ["hypervisor-1.example"], read_only = ["backup.example"] }

# A bucket that speaks S3. What the volumes of this node have published is kept there besides, so that they can be made again when all
# sites have lost them (sterna bucket), and what no node has of a chunk is fetched from there.
#[bucket]
#url = "s3://disks/ams"
# The server; without it Amazon's, in the region.
#endpoint = "https://s3.example:9000"
#region = "us-east-1"
# Who asks: a file in the form of ~/.aws/credentials that nobody else can read. Without it AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
# AWS_SESSION_TOKEN in the node's environment.
#credentials = "bucket.credentials"
# An authority whose certificates the server may have, in PEM, besides those that the system trusts.
#ca = "bucket-ca.pem"
# How much is sent there in a second; without it as much as there is.
#rate = "100Mbit"
# How long after what was sent last more is sent. "1s" to "24h".
#interval = "1min"
# How long what nothing needs any more is left there, from when the first node uses the bucket. Whoever sends or fetches has to be done
# with what he relies on in half of it.
#grace = "2d"

# The migrator that runs beside this node (sterna migrator run), on a host of VMs.
[migrator]
# Where it listens to the migrators of other hosts. Without it VMs neither leave this host nor come to it.
#listen = "10.77.0.1:7402"
# Where each VM that comes here gets a directory, for its sockets: absolute, or beginning in this directory.
#vms = "migrator/run"
# Whether a VM needs a token to leave this host or to come to it, which an operator issues (sterna vm token): "required" or "optional". One that
# is given has to be right in any case.
#tokens = "required"
# Programs that are called at the steps of a migration, with JSON on standard input (docs/migration.md): before anything is moved, at both hosts,
# where failing refuses it; as the VM comes to run at its new host; and once all is over.
#[migrator.hooks]
#prepare = "/etc/sterna/prepare"
#switch = "/etc/sterna/switch"
#finish = "/etc/sterna/finish"
# How long each may take. "100ms" to "10min".
#timeout = "10s"

[journal]
# A volume is sealed (its journal becomes chunks) when this much is in its journal. "1M" to "16G".
#seal_after = "32M"

# And at the latest when a write has been in its journal for so long. The longer, the more often a block that is written
# again and again is sealed once only; the shorter, the newer is what others see of it. "100ms" to "10min".
#seal_age = "5s"

# When this much of a volume's journal is not sealed, its writers wait; from three quarters of it on they are slowed down.
# At least twice seal_after.
#limit = "1G"

# How many volumes are sealed at the same time. 1 to 64.
#seals_at_once = 2

[space]
# What journals leave free on the disk, so that there is always room to seal and to collect garbage. At least 128M.
#reserve = "128M"

[memory]
# For the maps of segments that are read: 1 MiB for about 2 GiB of disks in use.
#segment_cache = "256M"

# For the nodes of maps.
#node_cache = "64M"

# For the index of chunks.
#index_cache = "64M"
"#;
