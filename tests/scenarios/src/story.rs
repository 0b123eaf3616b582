//! A story as it is read from its file, and the checks that it makes sense before it is played.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::expectation::Expectations;
use crate::stage::{Language, Store};
use crate::verbs::{Actor, BEGINNING, NEEDS_MEMORY, NEEDS_PROCESSES, verb};

/// A story.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    /// The name of its file, without the ending.
    #[serde(skip)]
    pub name: String,
    /// What it shows, as one sentence.
    pub title: String,
    /// Why it matters.
    pub why: String,
    /// The stores that it is played on.
    #[serde(default = "Store::all")]
    pub stores: Vec<Store>,
    /// Languages that cannot play it, and why not.
    #[serde(default)]
    pub except: BTreeMap<Language, String>,
    /// Whether two may believe in holding at one time: only where an operator has forced it.
    #[serde(default)]
    pub overlap: bool,
    /// Who acts.
    pub clients: BTreeMap<String, Role>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// Where a client lives, and with which options it connects.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// The process. Clients of one process share an agent.
    pub process: String,
    /// Options by name, as of a URL but without `coord.`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// One step.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// The verb.
    #[serde(rename = "do")]
    pub verb: String,
    /// A name under which the answer's values can be referred to. The name in `as` or `hold` does that by itself.
    pub id: Option<String>,
    /// What a success must say.
    #[serde(default)]
    pub expect: Expectations,
    /// What a success must say at last: the step is repeated until it does.
    #[serde(default)]
    pub until: Expectations,
    /// The step must fail, and what the error must say.
    pub error: Option<Expectations>,
    /// Errors that are as good as a success.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Everything else. What is no text is taken as the text of its JSON.
    #[serde(flatten, deserialize_with = "texts")]
    pub arguments: BTreeMap<String, String>,
}

fn texts<'a, D: Deserializer<'a>>(arguments: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, Value>::deserialize(arguments)?;
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(values.into_iter().map(|(name, value)| (name, text(value))).collect())
}

impl Step {
    /// An argument.
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).map(String::as_str)
    }

    /// The name under which the answer is kept.
    pub fn kept_as(&self) -> Option<&str> {
        self.id.as_deref().or_else(|| self.argument("as")).or_else(|| self.argument("hold"))
    }
}

impl Story {
    /// Reads and checks a story.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut story: Self = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        story.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        story.check().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(story)
    }

    /// Reads every story of a folder, in the order of their names.
    ///
    /// # Errors
    /// What is wrong with the folder, or with the first bad file.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, String> {
        let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// The processes, in the order of their names.
    pub fn processes(&self) -> Vec<&str> {
        let processes: BTreeSet<&str> = self.clients.values().map(|role| role.process.as_str()).collect();
        processes.into_iter().collect()
    }

    /// Whether agents of this language play it.
    pub fn is_for(&self, language: Language) -> bool {
        !self.except.contains_key(&language)
    }

    fn check(&self) -> Result<(), String> {
        if self.title.is_empty() || self.why.is_empty() || self.stores.is_empty() || self.steps.is_empty() {
            return Err("title, why, stores and steps must not be empty".into());
        }
        let mut begun = BTreeSet::new();
        for (index, step) in self.steps.iter().enumerate() {
            self.check_step(step, &mut begun)
                .map_err(|error| format!("step {} ({}): {error}", index + 1, step.verb))?;
        }
        Ok(())
    }

    fn check_step<'a>(&'a self, step: &'a Step, begun: &mut BTreeSet<&'a str>) -> Result<(), String> {
        let verb = verb(&step.verb).ok_or("there is no such verb")?;
        let given: BTreeSet<&str> = step.arguments.keys().map(String::as_str).collect();
        if let Some(missing) = verb.required.iter().find(|name| !given.contains(*name)) {
            return Err(format!("the argument '{missing}' is missing"));
        }
        let known = |name: &&str| verb.required.contains(name) || verb.optional.contains(name);
        if let Some(unknown) = given.iter().find(|name| !known(name)) {
            return Err(format!("there is no argument '{unknown}'"));
        }
        if let Some(client) = step.argument("client").filter(|client| !self.clients.contains_key(*client)) {
            return Err(format!("there is no client '{client}'"));
        }
        if let Some(process) = step.argument("process").filter(|process| !self.processes().contains(process)) {
            return Err(format!("there is no process '{process}'"));
        }
        if verb.actor == Actor::Hold && !begun.contains(step.argument("hold").unwrap_or_default()) {
            return Err("nothing was begun under this name before".into());
        }
        if step.argument("fence").is_some_and(|hold| !begun.contains(hold)) {
            return Err("'fence' names nothing that was begun before".into());
        }
        if step.argument("as").is_some_and(|name| name.contains('.')) {
            return Err("a name must not contain a dot, which ends it in references".into());
        }
        if BEGINNING.contains(&verb.name) && !begun.insert(step.argument("as").unwrap_or_default()) {
            return Err("something was begun under this name before".into());
        }
        if NEEDS_PROCESSES.contains(&verb.name) && self.stores.contains(&Store::Memory) {
            return Err("the memory store lives in one process; leave it out of 'stores'".into());
        }
        if NEEDS_MEMORY.contains(&verb.name) && self.stores != [Store::Memory] {
            return Err("only the memory store is under control; 'stores' must be [\"memory\"]".into());
        }
        let ends = usize::from(step.error.is_some())
            + usize::from(!step.until.is_empty())
            + usize::from(!step.allow.is_empty());
        if ends > 1 || (step.error.is_some() && !step.expect.is_empty()) {
            return Err("'error', 'until' and 'allow' exclude each other, and 'error' excludes 'expect'".into());
        }
        if step.error.as_ref().is_some_and(|error| !error.contains_key("code")) {
            return Err("'error' must name a code".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(steps: &str) -> Result<(), String> {
        let text = format!(
            r#"{{"title": "t", "why": "w", "stores": ["sqlite"], "clients": {{"a": {{"process": "p"}}}}, "steps": {steps}}}"#
        );
        serde_json::from_str::<Story>(&text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check(r#"[{"do": "connect", "client": "a"}, {"do": "kill", "process": "p"}]"#).unwrap();
        for (steps, needle) in [
            ("[]", "empty"),
            (r#"[{"do": "dance"}]"#, "no such verb"),
            (r#"[{"do": "connect"}]"#, "'client' is missing"),
            (r#"[{"do": "connect", "client": "b"}]"#, "no client 'b'"),
            (r#"[{"do": "connect", "client": "a", "color": "red"}]"#, "no argument 'color'"),
            (r#"[{"do": "release", "hold": "h"}]"#, "nothing was begun"),
            (r#"[{"do": "kill", "process": "q"}]"#, "no process 'q'"),
            (r#"[{"do": "table", "client": "a", "table": "t", "op": "get", "fence": "h"}]"#, "'fence' names nothing"),
            (r#"[{"do": "expire", "client": "a", "session": "s"}]"#, "memory"),
            (r#"[{"do": "observe", "client": "a", "election": "e", "as": "a.b"}]"#, "dot"),
            (r#"[{"do": "connect", "client": "a", "error": {}}]"#, "must name a code"),
            (r#"[{"do": "connect", "client": "a", "error": {"code": "Closed"}, "allow": ["Closed"]}]"#, "exclude"),
            (r#"[{"do": "connect", "client": "a", "expect": {"x": {"near": "1"}}}]"#, ""),
        ] {
            let error = check(steps).unwrap_err();
            assert!(error.contains(needle), "{steps}: {error}");
        }
    }
}
