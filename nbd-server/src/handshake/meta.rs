//! Metadata contexts: what BLOCK_STATUS can tell of, and how clients ask for it.

use crate::export::ExportName;
use crate::limits::{MAX_META_QUERIES, MAX_STRING_BYTES};
use crate::wire::{self, Fields};

use super::reply::Refusal;

/// A kind of status that an export tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaContext {
    /// `base:allocation`: what is a hole, and what reads as zeroes.
    Allocation,
    /// `x-sterna:residency`: what can be read without another site.
    Residency,
}

impl MetaContext {
    pub(super) const ALL: [Self; 2] = [Self::Allocation, Self::Residency];

    /// The context's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allocation => "base:allocation",
            Self::Residency => "x-sterna:residency",
        }
    }

    /// The id that selecting it gives; not 0, which stands for "none" in a list.
    pub fn id(self) -> u32 {
        match self {
            Self::Allocation => 1,
            Self::Residency => 2,
        }
    }

    /// The context with this id.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|context| context.id() == id)
    }

    pub(super) fn namespace(self) -> &'static str {
        let name = self.name();
        name.split_once(':').map_or(name, |(namespace, _)| namespace)
    }
}

/// A set of contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    allocation: bool,
    residency: bool,
}

impl Contexts {
    /// The set with no context but this one.
    pub fn only(context: MetaContext) -> Self {
        let mut contexts = Self::default();
        contexts.insert(context);
        contexts
    }

    /// Whether the context is in the set.
    pub fn contains(self, context: MetaContext) -> bool {
        match context {
            MetaContext::Allocation => self.allocation,
            MetaContext::Residency => self.residency,
        }
    }

    /// Puts a context in; `false` where it was in already.
    pub fn insert(&mut self, context: MetaContext) -> bool {
        let place = match context {
            MetaContext::Allocation => &mut self.allocation,
            MetaContext::Residency => &mut self.residency,
        };
        !std::mem::replace(place, true)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The contexts, in the order of their ids.
    pub fn iter(self) -> impl Iterator<Item = MetaContext> {
        MetaContext::ALL.into_iter().filter(move |&context| self.contains(context))
    }
}

/// The queries of LIST_META_CONTEXT or SET_META_CONTEXT, resolved.
#[derive(Clone, Copy, Debug)]
pub(super) struct MetaQuery(Contexts);

impl MetaQuery {
    /// Reads the data of either option.
    pub(super) fn parse(option: u32, data: &[u8]) -> Result<(ExportName, Self), Refusal> {
        let invalid = |text| Refusal::invalid(option, text);
        let mut fields = Fields(data);
        let name = fields.u32().and_then(|length| fields.bytes(length));
        let name = name.ok_or(invalid("the name is longer than the option"))?;
        let name =
            ExportName::try_from(name).map_err(|_| invalid("a name is UTF-8 of at most 4096 bytes without NUL"))?;
        let count = fields.u32().ok_or(invalid("the number of queries is missing"))?;
        if count > MAX_META_QUERIES {
            let kind = wire::option_reply::ERR_TOO_BIG;
            return Err(Refusal { option, kind, text: "there are two contexts here, and too many queries" });
        }
        let listing = option == wire::option::LIST_META_CONTEXT;
        let mut contexts = Contexts::default();
        for _ in 0..count {
            let query = fields.u32().filter(|&length| length <= MAX_STRING_BYTES).and_then(|n| fields.bytes(n));
            let query = query.ok_or(invalid("a query is longer than 4096 bytes, or than the option"))?;
            let query = std::str::from_utf8(query).map_err(|_| invalid("a query is UTF-8"))?;
            let (namespace, leaf) =
                query.split_once(':').ok_or(invalid("a query begins with a namespace and a colon"))?;
            for context in MetaContext::ALL {
                if query == context.name() || (listing && leaf.is_empty() && namespace == context.namespace()) {
                    contexts.insert(context);
                }
            }
        }
        if !fields.0.is_empty() {
            return Err(invalid("there is more in the option than its queries"));
        }
        if listing && count == 0 {
            MetaContext::ALL.into_iter().for_each(|context| {
                contexts.insert(context);
            });
        }
        Ok((name, Self(contexts)))
    }

    /// What the queries select.
    pub(super) fn contexts(self) -> Contexts {
        self.0
    }
}
