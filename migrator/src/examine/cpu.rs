//! The CPU that the guest sees.
//!
//! The name of a model does not say it: `host` and `max` are what the host has, other models lose what the host has not, and with KVM
//! all of them say whose the host's CPU is. What the guest sees are the words of CPUID, which QEMU gives at once (`feature-words`).
//! What bits of other registers say (those of `arch-capabilities` and `vmx`) is not among them.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::facts::property;
use crate::qmp::{Commands, QmpError};

/// A CPU, as `query-cpus-fast` lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cpu {
    cpu_index: u64,
    qom_path: String,
    target: String,
}

/// A word of CPUID.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Word {
    cpuid_input_eax: u32,
    /// Left out where CPUID does not look at it.
    #[serde(default)]
    cpuid_input_ecx: u32,
    cpuid_register: String,
    features: u32,
}

/// The model of a machine's CPUs, and what they are and have, as `Machine.cpu_features` in `migrator.proto` has it. All of them are alike.
pub(super) async fn describe(qmp: &Commands) -> Result<(String, Vec<String>), QmpError> {
    let cpus: Vec<Cpu> = qmp.ask_for("query-cpus-fast", Value::Null).await?;
    let mut features = vec![format!("count={}", cpus.len())];
    let Some(first) = cpus.into_iter().min_by_key(|cpu| cpu.cpu_index) else {
        return Ok((String::new(), features));
    };
    let class: String = property(qmp, &first.qom_path, "type").await?;
    let model = class.strip_suffix(&format!("-{}-cpu", first.target)).unwrap_or(&class);
    for name in IDENTITY {
        let value: Option<Value> = property_if_any(qmp, &first.qom_path, name).await?;
        let text = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        features.extend(text.map(|text| format!("{name}={text}")));
    }
    let words: Option<Vec<Word>> = property_if_any(qmp, &first.qom_path, "feature-words").await?;
    features.extend(words.iter().flatten().flat_map(bits));
    Ok((model.to_owned(), features))
}

/// A property that CPUs of other architectures do not have.
async fn property_if_any<T: DeserializeOwned>(qmp: &Commands, path: &str, name: &str) -> Result<Option<T>, QmpError> {
    match property(qmp, path, name).await {
        Err(QmpError::Refused { .. }) => Ok(None),
        value => value.map(Some),
    }
}

/// The bits of a word that are set.
fn bits(word: &Word) -> impl Iterator<Item = String> {
    let Word { cpuid_input_eax: leaf, cpuid_input_ecx: subleaf, cpuid_register, features } = word;
    let name = format!("{leaf:x}.{subleaf:x}.{}", cpuid_register.to_lowercase());
    (0..u32::BITS).filter(move |bit| features >> bit & 1 == 1).map(move |bit| format!("{name}.{bit}"))
}

/// A feature by the name that it has on QEMU's command line, where we know it.
pub(super) fn readable(feature: &str) -> String {
    if feature.contains('=') {
        return feature.to_owned();
    }
    name_of(feature).map_or_else(|| format!("CPUID {feature}"), str::to_owned)
}

fn name_of(feature: &str) -> Option<&'static str> {
    let (word, bit) = feature.rsplit_once('.')?;
    let (_, names) = NAMES.iter().find(|(named, _)| *named == word)?;
    names.split(' ').nth(bit.parse().ok()?).filter(|name| *name != "-")
}

/// What a CPU says that it is, and how much memory it addresses.
const IDENTITY: [&str; 6] = ["vendor", "family", "model", "stepping", "model-id", "phys-bits"];

/// The names of the bits of a word, from bit 0, with `-` for one that has none: as QEMU 10.0.2 has them.
const NAMES: &[(&str, &str)] = &[
    (
        "1.0.edx",
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi mmx fxsr sse \
         sse2 ss ht tm ia64 pbe",
    ),
    (
        "1.0.ecx",
        "sse3 pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2 \
         x2apic movbe popcnt tsc-deadline aes xsave - avx f16c rdrand hypervisor",
    ),
    ("6.0.eax", "- - arat"),
    (
        "7.0.ebx",
        "fsgsbase tsc-adjust - bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm - zero-fcs-fds mpx - avx512f \
         avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni \
         avx512bw avx512vl",
    ),
    (
        "7.0.ecx",
        "- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq \
         - la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b - - pks",
    ),
    (
        "7.0.edx",
        "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - tsx-ldtrk - - \
         arch-lbr - - amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities \
         core-capability ssbd",
    ),
    (
        "7.1.eax",
        "sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - - lkgs wrmsrns - amx-fp16 - \
         avx-ifma - - lam",
    ),
    ("7.1.edx", "- - - - avx-vnni-int8 avx-ne-convert - - amx-complex - avx-vnni-int16 - - - prefetchiti"),
    ("7.2.edx", "intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no"),
    ("d.1.eax", "xsaveopt xsavec xgetbv1 xsaves xfd"),
    (
        "80000001.0.edx",
        "fpu vme de pse tsc msr pae mce cx8 apic - syscall mtrr pge mca cmov pat pse36 - - nx - mmxext mmx fxsr \
         fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
    ),
    (
        "80000001.0.ecx",
        "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp \
         fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb",
    ),
    ("80000007.0.ebx", "overflow-recov succor"),
    ("80000007.0.edx", "- - - - - - - - invtsc"),
    (
        "80000008.0.ebx",
        "clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp - stibp-always-on - - - - - - amd-ssbd \
         virt-ssbd amd-no-ssb - amd-psfd",
    ),
    (
        "80000021.0.eax",
        "no-nested-data-bp - lfence-always-serializing - - - null-sel-clr-base - auto-ibrs - - - - - - - - - - - - - - \
         - eraps - - sbpb ibpb-brtype srso-no srso-user-kernel-no",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Of `-cpu max` of QEMU 10.0.2.
    #[test]
    fn the_bits_of_a_word_are_told_apart_and_named() {
        let word = json!({ "cpuid-register": "EAX", "cpuid-input-ecx": 1, "cpuid-input-eax": 13, "features": 5 });
        let word: Word = serde_json::from_value(word).expect("a word");
        assert_eq!(bits(&word).collect::<Vec<_>>(), ["d.1.eax.0", "d.1.eax.2"]);
        let word = json!({ "cpuid-register": "EDX", "cpuid-input-eax": 2_147_483_658_u32, "features": 268_500_993 });
        let word: Word = serde_json::from_value(word).expect("a word");
        assert_eq!(bits(&word).collect::<Vec<_>>(), ["8000000a.0.edx.0", "8000000a.0.edx.16", "8000000a.0.edx.28"]);
    }

    #[test]
    fn names_are_those_of_qemus_command_line() {
        let named = ["7.0.ebx.16", "d.1.eax.2", "1.0.edx.31", "80000001.0.edx.29", "7.0.edx.31", "80000021.0.eax.30"];
        let names = ["avx512f", "xgetbv1", "pbe", "lm", "ssbd", "srso-user-kernel-no"];
        assert_eq!(named.map(readable), names);
        let others = ["7.0.ebx.2", "8000000a.0.edx.0", "vendor=GenuineIntel", "7.0.ebx.99", "x"];
        let shown = ["CPUID 7.0.ebx.2", "CPUID 8000000a.0.edx.0", "vendor=GenuineIntel", "CPUID 7.0.ebx.99", "CPUID x"];
        assert_eq!(others.map(readable), shown);
    }

    #[test]
    fn no_word_has_more_names_than_bits() {
        for (word, names) in NAMES {
            assert!(names.split(' ').count() <= 32, "{word}");
        }
    }
}
