//! The values that messages are made of, each with its limits.

use crate::{
    fact::{Cause, PathText, Reading, Text, Unknown},
    limits,
    time::Timestamp,
    v1,
};

use super::Error;

/// A domain type with its form on the wire.
pub(in crate::fact) trait Wire: Sized {
    /// The generated type.
    type Message;

    /// Returns the form on the wire.
    fn encode(&self) -> Self::Message;

    /// Returns the value, if the contract allows it. `field` names it in errors.
    fn decode(message: Self::Message, field: &'static str) -> Result<Self, Error>;
}

/// Returns the value of a field that proto3 lets a sender leave out and the contract does not.
pub(super) fn required<T: Wire>(message: Option<T::Message>, field: &'static str) -> Result<T, Error> {
    T::decode(message.ok_or(Error::Field(field))?, field)
}

/// A type whose reading is a message of its own.
pub(in crate::fact) trait Readable: Wire {
    /// The message with `known` and `unknown`.
    type Reading;

    fn wrap(reading: Result<Self::Message, v1::Unknown>) -> Self::Reading;

    /// Returns `None` when neither is set.
    fn unwrap(reading: Self::Reading) -> Option<Result<Self::Message, v1::Unknown>>;
}

macro_rules! readable {
    ($($type:ty => $message:ident in $module:ident),* $(,)?) => { $(
        impl crate::fact::wire::value::Readable for $type {
            type Reading = v1::$message;

            fn wrap(reading: Result<Self::Message, v1::Unknown>) -> Self::Reading {
                v1::$message {
                    reading: Some(match reading {
                        Ok(known) => v1::$module::Reading::Known(known),
                        Err(unknown) => v1::$module::Reading::Unknown(unknown),
                    }),
                }
            }

            fn unwrap(reading: Self::Reading) -> Option<Result<Self::Message, v1::Unknown>> {
                reading.reading.map(|reading| match reading {
                    v1::$module::Reading::Known(known) => Ok(known),
                    v1::$module::Reading::Unknown(unknown) => Err(unknown),
                })
            }
        }
    )* };
}
pub(super) use readable;

readable!(
    bool => BoolReading in bool_reading,
    u64 => UintReading in uint_reading,
    Text => TextReading in text_reading,
    Timestamp => TimeReading in time_reading,
);

impl<T: Readable> Wire for Reading<T> {
    type Message = T::Reading;

    fn encode(&self) -> T::Reading {
        T::wrap(match self {
            Self::Known(value) => Ok(value.encode()),
            Self::Unknown { unknown } => Err(unknown.encode()),
        })
    }

    fn decode(message: T::Reading, field: &'static str) -> Result<Self, Error> {
        match T::unwrap(message).ok_or(Error::Field(field))? {
            Ok(value) => Ok(Self::Known(T::decode(value, field)?)),
            Err(unknown) => Ok(Self::Unknown { unknown: Unknown::decode(unknown, field)? }),
        }
    }
}

impl Wire for Unknown {
    type Message = v1::Unknown;

    fn encode(&self) -> v1::Unknown {
        v1::Unknown { cause: encode_cause(self.cause).into(), detail: self.detail.encode() }
    }

    fn decode(message: v1::Unknown, field: &'static str) -> Result<Self, Error> {
        if message.detail.len() > limits::DETAIL_BYTES {
            return Err(Error::Field(field));
        }
        let cause = v1::Cause::try_from(message.cause).ok().and_then(decode_cause).ok_or(Error::UnknownKind(field))?;
        Ok(Self { cause, detail: Text::decode(message.detail, field)? })
    }
}

fn encode_cause(cause: Cause) -> v1::Cause {
    match cause {
        Cause::Absent => v1::Cause::Absent,
        Cause::Stale => v1::Cause::Stale,
        Cause::Unsupported => v1::Cause::Unsupported,
        Cause::TimedOut => v1::Cause::TimedOut,
        Cause::Forbidden => v1::Cause::Forbidden,
        Cause::Garbled => v1::Cause::Garbled,
        Cause::Limit => v1::Cause::Limit,
        Cause::Undecidable => v1::Cause::Undecidable,
        Cause::Failed => v1::Cause::Failed,
        Cause::Hidden => v1::Cause::Hidden,
    }
}

fn decode_cause(cause: v1::Cause) -> Option<Cause> {
    match cause {
        v1::Cause::Unspecified => None,
        v1::Cause::Absent => Some(Cause::Absent),
        v1::Cause::Stale => Some(Cause::Stale),
        v1::Cause::Unsupported => Some(Cause::Unsupported),
        v1::Cause::TimedOut => Some(Cause::TimedOut),
        v1::Cause::Forbidden => Some(Cause::Forbidden),
        v1::Cause::Garbled => Some(Cause::Garbled),
        v1::Cause::Limit => Some(Cause::Limit),
        v1::Cause::Undecidable => Some(Cause::Undecidable),
        v1::Cause::Failed => Some(Cause::Failed),
        v1::Cause::Hidden => Some(Cause::Hidden),
    }
}

impl Wire for Text {
    type Message = String;

    fn encode(&self) -> String {
        self.as_str().to_owned()
    }

    fn decode(message: String, field: &'static str) -> Result<Self, Error> {
        Self::parse(message).ok_or(Error::Field(field))
    }
}

impl Wire for PathText {
    type Message = String;

    fn encode(&self) -> String {
        self.as_str().to_owned()
    }

    fn decode(message: String, field: &'static str) -> Result<Self, Error> {
        Self::parse(message).ok_or(Error::Field(field))
    }
}

impl Wire for Timestamp {
    type Message = prost_types::Timestamp;

    fn encode(&self) -> prost_types::Timestamp {
        self.to_wire()
    }

    fn decode(message: prost_types::Timestamp, field: &'static str) -> Result<Self, Error> {
        Self::from_wire(&message).ok_or(Error::Field(field))
    }
}

impl Wire for u16 {
    type Message = u32;

    fn encode(&self) -> u32 {
        u32::from(*self)
    }

    fn decode(message: u32, field: &'static str) -> Result<Self, Error> {
        Self::try_from(message).map_err(|_| Error::Field(field))
    }
}

macro_rules! plain {
    ($($type:ty),*) => { $(
        impl Wire for $type {
            type Message = $type;

            fn encode(&self) -> $type {
                *self
            }

            fn decode(message: $type, _field: &'static str) -> Result<Self, Error> {
                Ok(message)
            }
        }
    )* };
}

plain!(bool, i32, u32, u64);

impl<T: Wire> Wire for Vec<T> {
    type Message = Vec<T::Message>;

    fn encode(&self) -> Vec<T::Message> {
        self.iter().map(Wire::encode).collect()
    }

    fn decode(message: Vec<T::Message>, field: &'static str) -> Result<Self, Error> {
        if message.len() > limits::LIST_ITEMS {
            return Err(Error::Field(field));
        }
        message.into_iter().map(|item| T::decode(item, field)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    type Message = Option<T::Message>;

    fn encode(&self) -> Option<T::Message> {
        self.as_ref().map(Wire::encode)
    }

    fn decode(message: Option<T::Message>, field: &'static str) -> Result<Self, Error> {
        message.map(|value| T::decode(value, field)).transpose()
    }
}
