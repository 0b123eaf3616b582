//! How a dotted path finds values, also through arrays, as MongoDB's filters do.

use bson::{Bson, Document};

/// What a path finds: a value, or that there is none.
pub(super) type Found<'a> = Option<&'a Bson>;

/// The place in an array that a part of a path names: digits without a zero in front.
pub(super) fn index(part: &str) -> Option<usize> {
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let plain = part == "0" || !part.starts_with('0');
    (digits && plain).then(|| part.parse().ok()).flatten()
}

/// Whether `visit` says yes to any of the values that the path finds: those in arrays on the way, each element of an
/// array at its end, and then that array itself.
pub(super) fn any<'a>(document: &'a Document, path: &str, visit: &mut dyn FnMut(Found<'a>) -> bool) -> bool {
    walk(document, path, visit)
}

fn walk<'a>(mut document: &'a Document, mut path: &str, visit: &mut dyn FnMut(Found<'a>) -> bool) -> bool {
    loop {
        let (part, rest) = path.split_once('.').map_or((path, None), |(part, rest)| (part, Some(rest)));
        match (document.get(part), rest) {
            (Some(whole @ Bson::Array(array)), rest) => return walk_array(whole, array, rest, visit),
            (found, None) => return visit(found),
            (Some(Bson::Document(inner)), Some(rest)) => {
                document = inner;
                path = rest;
            }
            (_, Some(_)) => return visit(None),
        }
    }
}

fn walk_array<'a>(
    whole: &'a Bson,
    array: &'a [Bson],
    rest: Option<&str>,
    visit: &mut dyn FnMut(Found<'a>) -> bool,
) -> bool {
    let Some(rest) = rest else {
        return array.iter().any(|element| visit(Some(element))) || visit(Some(whole));
    };
    let (part, below) = rest.split_once('.').map_or((rest, None), |(part, below)| (part, Some(below)));
    let chosen = index(part);
    array.iter().enumerate().any(|(place, element)| {
        let by_name = matches!(element, Bson::Document(document) if walk(document, rest, visit));
        by_name
            || chosen == Some(place)
                && match (element, below) {
                    (_, None) => visit(Some(element)),
                    (Bson::Document(document), Some(below)) => walk(document, below, visit),
                    (Bson::Array(inner), Some(below)) => walk_array(element, inner, Some(below), visit),
                    _ => false,
                }
    })
}
