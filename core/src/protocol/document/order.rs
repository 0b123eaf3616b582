//! How values of BSON compare: MongoDB's order over all types, with numbers by their exact value whatever their type.
//!
//! Texts compare by their bytes; collations are deliberately absent.

use std::cmp::Ordering;

use bson::{Bson, Document};

/// Compares two values as MongoDB sorts them.
pub fn compare(left: &Bson, right: &Bson) -> Ordering {
    class(left).cmp(&class(right)).then_with(|| within_class(left, right))
}

/// Compares two documents: field by field, in their order.
pub fn compare_documents(left: &Document, right: &Document) -> Ordering {
    compare_fields(left.iter().map(|(k, v)| (k.as_str(), v)), right.iter().map(|(k, v)| (k.as_str(), v)))
}

/// Whether two documents are equal and stored alike: by value, and of the same size.
pub fn same(left: &Document, right: &Document) -> bool {
    let size = |document: &Document| document.to_vec().map(|bytes| bytes.len()).ok();
    compare_documents(left, right).is_eq() && size(left) == size(right)
}

/// Where a value's type stands in the order of types. Values of one class can be compared by more than their type.
pub fn class(value: &Bson) -> i8 {
    match value {
        Bson::MinKey => -1,
        Bson::Undefined => 0,
        Bson::Null => 5,
        Bson::Double(_) | Bson::Int32(_) | Bson::Int64(_) | Bson::Decimal128(_) => 10,
        Bson::String(_) | Bson::Symbol(_) => 15,
        Bson::Document(_) => 20,
        Bson::Array(_) => 25,
        Bson::Binary(_) => 30,
        Bson::ObjectId(_) => 35,
        Bson::Boolean(_) => 40,
        Bson::DateTime(_) => 45,
        Bson::Timestamp(_) => 47,
        Bson::RegularExpression(_) => 50,
        Bson::DbPointer(_) => 55,
        Bson::JavaScriptCode(_) => 60,
        Bson::JavaScriptCodeWithScope(_) => 65,
        Bson::MaxKey => 127,
    }
}

/// Bytes that are equal for values that are, and only for those: what a unique index compares.
pub fn encode(value: &Bson, out: &mut Vec<u8>) {
    let text = |text: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(&(text.len() as u64).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    out.push(class(value).to_be_bytes()[0]);
    match value {
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => {
            if let Some(number) = number(value) {
                text(&number.canonical(), out);
            }
        }
        Bson::String(value) | Bson::Symbol(value) => text(value, out),
        Bson::Document(document) => {
            for (name, value) in document {
                out.push(1);
                text(name, out);
                encode(value, out);
            }
            out.push(0);
        }
        Bson::Array(values) => {
            for value in values {
                out.push(1);
                encode(value, out);
            }
            out.push(0);
        }
        Bson::Binary(binary) => {
            out.extend_from_slice(&(binary.bytes.len() as u64).to_be_bytes());
            out.push(binary.subtype.into());
            out.extend_from_slice(&binary.bytes);
        }
        Bson::ObjectId(id) => out.extend_from_slice(&id.bytes()),
        Bson::Boolean(value) => out.push((*value).into()),
        // In the order of the dates, so that those before another one can be looked up.
        Bson::DateTime(date) => {
            out.extend_from_slice(&(date.timestamp_millis() ^ i64::MIN).to_be_bytes());
        }
        Bson::Timestamp(stamp) => {
            out.extend_from_slice(&stamp.time.to_be_bytes());
            out.extend_from_slice(&stamp.increment.to_be_bytes());
        }
        Bson::RegularExpression(regex) => {
            text(regex.pattern.as_str(), out);
            text(regex.options.as_str(), out);
        }
        Bson::JavaScriptCode(code) => text(code, out),
        Bson::JavaScriptCodeWithScope(code) => {
            text(&code.code, out);
            encode(&Bson::Document(code.scope.clone()), out);
        }
        Bson::DbPointer(_) => text(&format!("{value:?}"), out),
        Bson::Null | Bson::Undefined | Bson::MinKey | Bson::MaxKey => {}
    }
}

/// What a value is, for a message.
pub fn type_name(value: &Bson) -> &'static str {
    match value {
        Bson::MinKey => "a MinKey",
        Bson::Undefined => "an undefined value",
        Bson::Null => "null",
        Bson::Double(_) => "a double",
        Bson::Int32(_) | Bson::Int64(_) => "an integer",
        Bson::Decimal128(_) => "a decimal",
        Bson::String(_) => "a text",
        Bson::Symbol(_) => "a symbol",
        Bson::Document(_) => "a document",
        Bson::Array(_) => "an array",
        Bson::Binary(_) => "a binary value",
        Bson::ObjectId(_) => "an object id",
        Bson::Boolean(_) => "a truth value",
        Bson::DateTime(_) => "a date",
        Bson::Timestamp(_) => "a timestamp",
        Bson::RegularExpression(_) => "a regular expression",
        Bson::DbPointer(_) => "a pointer",
        Bson::JavaScriptCode(_) | Bson::JavaScriptCodeWithScope(_) => "code",
        Bson::MaxKey => "a MaxKey",
    }
}

/// Whether a value is a number that is not one.
pub fn is_nan(value: &Bson) -> bool {
    match value {
        Bson::Double(number) => number.is_nan(),
        Bson::Decimal128(_) => matches!(number(value), Some(Number::Nan)),
        _ => false,
    }
}

fn within_class(left: &Bson, right: &Bson) -> Ordering {
    match (left, right) {
        (Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_), _) => compare_numbers(left, right),
        (Bson::String(l) | Bson::Symbol(l), Bson::String(r) | Bson::Symbol(r)) => l.as_bytes().cmp(r.as_bytes()),
        (Bson::Document(l), Bson::Document(r)) => compare_documents(l, r),
        (Bson::Array(l), Bson::Array(r)) => compare_fields(l.iter().map(|v| ("", v)), r.iter().map(|v| ("", v))),
        (Bson::Binary(l), Bson::Binary(r)) => {
            let key = |b: &bson::Binary| (b.bytes.len(), u8::from(b.subtype));
            key(l).cmp(&key(r)).then_with(|| l.bytes.cmp(&r.bytes))
        }
        (Bson::ObjectId(l), Bson::ObjectId(r)) => l.cmp(r),
        (Bson::Boolean(l), Bson::Boolean(r)) => l.cmp(r),
        (Bson::DateTime(l), Bson::DateTime(r)) => l.cmp(r),
        (Bson::Timestamp(l), Bson::Timestamp(r)) => (l.time, l.increment).cmp(&(r.time, r.increment)),
        (Bson::RegularExpression(l), Bson::RegularExpression(r)) => {
            (l.pattern.as_str(), l.options.as_str()).cmp(&(r.pattern.as_str(), r.options.as_str()))
        }
        (Bson::JavaScriptCode(l), Bson::JavaScriptCode(r)) => l.as_bytes().cmp(r.as_bytes()),
        (Bson::JavaScriptCodeWithScope(l), Bson::JavaScriptCodeWithScope(r)) => {
            l.code.cmp(&r.code).then_with(|| compare_documents(&l.scope, &r.scope))
        }
        (Bson::DbPointer(_), Bson::DbPointer(_)) => format!("{left:?}").cmp(&format!("{right:?}")),
        // Of one class there is one value.
        _ => Ordering::Equal,
    }
}

fn compare_fields<'a>(
    mut left: impl Iterator<Item = (&'a str, &'a Bson)>,
    mut right: impl Iterator<Item = (&'a str, &'a Bson)>,
) -> Ordering {
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((left_name, l)), Some((right_name, r))) => {
                let order = class(l)
                    .cmp(&class(r))
                    .then_with(|| left_name.as_bytes().cmp(right_name.as_bytes()))
                    .then_with(|| within_class(l, r));
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

fn compare_numbers(left: &Bson, right: &Bson) -> Ordering {
    match (integer(left), integer(right)) {
        (Some(l), Some(r)) => l.cmp(&r),
        _ => match (number(left), number(right)) {
            (Some(l), Some(r)) => l.compare(&r),
            _ => Ordering::Equal,
        },
    }
}

fn integer(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some((*number).into()),
        Bson::Int64(number) => Some(*number),
        _ => None,
    }
}

/// A number's exact value.
enum Number {
    Nan,
    Infinite { negative: bool },
    Finite(Decimal),
}

/// `0.d₁d₂d₃… · 10^exponent`, without zeros at either end of the digits; no digits for zero.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

fn number(value: &Bson) -> Option<Number> {
    Some(match value {
        Bson::Int32(number) => finite(&number.to_string()),
        Bson::Int64(number) => finite(&number.to_string()),
        Bson::Double(number) if number.is_nan() => Number::Nan,
        Bson::Double(number) if number.is_infinite() => Number::Infinite { negative: *number < 0.0 },
        // Every double is a finite decimal fraction of at most so many places.
        Bson::Double(number) => finite(&format!("{number:.1074}")),
        Bson::Decimal128(number) => match number.to_string().as_str() {
            "Infinity" => Number::Infinite { negative: false },
            "-Infinity" => Number::Infinite { negative: true },
            text if text.ends_with("NaN") => Number::Nan,
            text => finite(text),
        },
        _ => return None,
    })
}

/// The value of a text like `-12.50` or `1.5E+3`.
fn finite(text: &str) -> Number {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, power) = text.split_once(['E', 'e']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.drain(..zeros);
    let kept = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    digits.truncate(kept);
    let power: i64 = power.parse().unwrap_or(0);
    let exponent = if digits.is_empty() { 0 } else { whole.len() as i64 - zeros as i64 + power };
    Number::Finite(Decimal { negative: negative && !digits.is_empty(), digits, exponent })
}

impl Number {
    /// A text that is equal for equal numbers.
    fn canonical(&self) -> String {
        match self {
            Self::Nan => "NaN".into(),
            Self::Infinite { negative } => if *negative { "-Infinity" } else { "Infinity" }.into(),
            Self::Finite(Decimal { negative, digits, exponent }) => {
                let sign = if *negative { "-" } else { "" };
                format!("{sign}{}E{exponent}", String::from_utf8_lossy(digits))
            }
        }
    }

    /// Not-a-number is below all others, and equal to itself.
    fn compare(&self, other: &Self) -> Ordering {
        let rank = |number: &Self| match number {
            Self::Nan => 0,
            Self::Infinite { negative: true } => 1,
            Self::Finite(_) => 2,
            Self::Infinite { negative: false } => 3,
        };
        match (self, other) {
            (Self::Finite(l), Self::Finite(r)) => l.compare(r),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl Decimal {
    fn compare(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let (l, r) = (sign(self), sign(other));
        if l != r || l == 0 {
            return l.cmp(&r);
        }
        // Without zeros at the end the longer of two equal beginnings is the larger one.
        let size = self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
        if l < 0 { size.reverse() } else { size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse().unwrap())
    }

    #[test]
    fn numbers_of_all_types_have_one_order() {
        let ascending = [
            Bson::Double(f64::NAN),
            Bson::Double(f64::NEG_INFINITY),
            decimal("-1E+400"),
            Bson::Double(-1.5),
            Bson::Int32(-1),
            Bson::Double(0.0),
            decimal("0.1"),
            // What is written 0.1 is a little more in binary.
            Bson::Double(0.1),
            Bson::Int64(9_007_199_254_740_992),
            Bson::Int64(9_007_199_254_740_993),
            Bson::Double(9_007_199_254_740_994.0),
            Bson::Int64(i64::MAX),
            Bson::Double(9_223_372_036_854_775_808.0),
            decimal("Infinity"),
        ];
        for (i, left) in ascending.iter().enumerate() {
            for (j, right) in ascending.iter().enumerate() {
                assert_eq!(compare(left, right), i.cmp(&j), "{left:?} {right:?}");
            }
        }
        for (left, right) in [
            (Bson::Int32(1), decimal("1.00")),
            (Bson::Double(-0.0), Bson::Int64(0)),
            (decimal("NaN"), Bson::Double(f64::NAN)),
            (decimal("1E+2"), Bson::Int32(100)),
        ] {
            assert!(compare(&left, &right).is_eq(), "{left:?} {right:?}");
        }
    }
}
