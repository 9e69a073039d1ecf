//! Invents messages from the contract's own descriptors: every field, every variant, every kind of hostile value.

use muster_proto::FILE_DESCRIPTOR_SET;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value, prost::Message as _,
};

use crate::harness::random::Random;

/// Texts that do harm where they are printed, parsed or put into a path.
pub const TEXTS: &[&str] = &[
    "",
    "plain",
    "\u{1b}[2J\u{1b}[31mred",
    "\u{1b}]0;title\u{7}",
    "line\nbreak\r\n",
    "nul\0byte",
    "\u{202e}gnp.exe",
    "\u{2066}isolated\u{2069}",
    "zero\u{200b}width",
    "\u{9b}31mC1",
    "=cmd|'/c calc'!A1",
    "../../etc/passwd",
    "'; DROP TABLE hosts; --",
    "a\\x1bb",
    "%s%n{}{0}",
    "\u{feff}bom",
    "𝔲𝔫𝔦𝔠𝔬𝔡𝔢",
    "host.name == 'x' || true",
];

/// Invents messages.
#[derive(Debug)]
pub struct Inventor {
    pool: DescriptorPool,
    random: Random,
    /// Items of a list, at most.
    pub list_items: u64,
    /// Whether texts may be hostile; else they are short and plain.
    pub hostile_texts: bool,
}

impl Inventor {
    /// Returns an inventor with this chance.
    ///
    /// # Panics
    ///
    /// Never: the contract's descriptors decode.
    pub fn new(random: Random) -> Self {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the contract's descriptors");
        Self { pool, random, list_items: 4, hostile_texts: true }
    }

    /// Returns an encoded message of the type `name`, such as `Fact`.
    ///
    /// # Panics
    ///
    /// When the contract has no such message.
    pub fn message(&mut self, name: &str) -> Vec<u8> {
        let full = format!("muster.v1.{name}");
        let descriptor = self.pool.get_message_by_name(&full).unwrap_or_else(|| panic!("no message {full}"));
        self.fill(&descriptor, 0).encode_to_vec()
    }

    /// Returns an encoded `Fact` whose variant is the one at `number`.
    ///
    /// # Panics
    ///
    /// When there is no such variant.
    pub fn fact(&mut self, number: u32) -> Vec<u8> {
        let descriptor = self.pool.get_message_by_name("muster.v1.Fact").expect("the contract has facts");
        let field = descriptor.get_field(number).expect("a variant of Fact");
        let Kind::Message(variant) = field.kind() else { panic!("a variant of Fact is a message") };
        let mut fact = DynamicMessage::new(descriptor);
        fact.set_field(&field, Value::Message(self.fill(&variant, 1)));
        fact.encode_to_vec()
    }

    /// Returns the numbers of the variants of `Fact`.
    ///
    /// # Panics
    ///
    /// Never: the contract has facts.
    pub fn fact_variants(&self) -> Vec<u32> {
        let descriptor = self.pool.get_message_by_name("muster.v1.Fact").expect("the contract has facts");
        descriptor.fields().map(|field| field.number()).collect()
    }

    fn fill(&mut self, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            // Now and then a field is left out, and a part of the variants of a oneof never set.
            if self.random.below(12) == 0 || depth > 12 {
                continue;
            }
            if field.containing_oneof().is_some_and(|oneof| oneof.fields().any(|other| message.has_field(&other)))
                && self.random.below(2) == 0
            {
                continue;
            }
            let value = self.value(&field, depth);
            message.set_field(&field, value);
        }
        message
    }

    fn value(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        if field.is_map() {
            return Value::Map(Default::default());
        }
        if field.is_list() {
            let count = self.random.below(self.list_items + 1);
            return Value::List((0..count).map(|_| self.single(field, depth)).collect());
        }
        self.single(field, depth)
    }

    fn single(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let number = self.extreme();
        #[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation, reason = "any number will do")]
        match field.kind() {
            Kind::Message(descriptor) => Value::Message(self.fill(&descriptor, depth + 1)),
            Kind::Enum(_) => Value::EnumNumber(match self.random.below(4) {
                0 => number as i32,
                _ => self.random.below(12) as i32,
            }),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => {
                let len = [0, 1, 16, 32, 33][self.random.index(5)];
                Value::Bytes(self.random.bytes(len).into())
            }
            Kind::Bool => Value::Bool(number & 1 == 0),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number as i64),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(number),
            Kind::Float => Value::F32(f32::NAN),
            Kind::Double => Value::F64(f64::NAN),
        }
    }

    fn text(&mut self) -> String {
        match self.random.below(30) {
            _ if !self.hostile_texts => format!("t{}", self.random.below(1000)),
            0 => "x".repeat(4096),
            1 => "\u{1b}".repeat(600),
            2 => "x".repeat(5000),
            _ => TEXTS[self.random.index(TEXTS.len())].to_owned(),
        }
    }

    fn extreme(&mut self) -> u64 {
        match self.random.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::from(u32::MAX),
            3 => 1 << 63,
            4 => 253_402_300_800,
            _ => self.random.below(100_000),
        }
    }
}

/// Returns the first character of `text` that a terminal would obey or a reader not see, other than the end of a line.
pub fn unprintable(text: &str) -> Option<char> {
    text.chars().find(|c| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    })
}

#[cfg(test)]
mod tests {
    use muster_proto::v1;

    use super::*;

    #[test]
    fn inventions_are_messages_of_the_contract_and_of_every_kind() {
        let mut inventor = Inventor::new(Random::of(1));
        let mut good = 0;
        for variant in inventor.fact_variants() {
            for _ in 0..50 {
                let bytes = inventor.fact(variant);
                assert!(prost::Message::decode(bytes.as_slice()).map(|_: v1::Fact| ()).is_ok());
                good += usize::from(muster_proto::fact::Fact::decode(&bytes).is_ok());
            }
        }
        assert!(good < 300, "nearly all inventions are good facts: {good}");
        assert!(TEXTS.iter().any(|text| unprintable(text).is_some()) && unprintable("plain\ntext").is_none());
    }
}
