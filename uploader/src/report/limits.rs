//! Cuts a report to what the schema takes: one text that is too long would have the API server refuse all of it.

use blobferry_crds::{ActiveFile, Activity, Check, FileProblem, Progress, conditions::shorten};

use super::Report;

const CHECKS: usize = 4;
const RECENT_FAILURES: usize = 3;
const HELD_BACK: usize = 5;
const ACTIVE_FILES: usize = 3;

const NAME: usize = 256;
const REASON: usize = 64;
const MESSAGE: usize = 200;
const CHECK_TYPE: usize = 16;
const PERCENT: usize = 8;
const AMOUNT: usize = 32;

/// `report` as far as the schema takes it. Lists keep their first entries.
pub(super) fn fitted(report: &Report) -> Report {
    Report { progress: progress(&report.progress), activity: activity(&report.activity) }
}

fn progress(progress: &Progress) -> Progress {
    Progress {
        percent: shorten(&progress.percent, PERCENT),
        checks: progress.checks.iter().take(CHECKS).map(check).collect(),
        last_error: progress.last_error.as_deref().map(|text| shorten(text, MESSAGE)),
        recent_failures: progress.recent_failures.iter().take(RECENT_FAILURES).map(problem).collect(),
        held_back: progress.held_back.iter().take(HELD_BACK).map(problem).collect(),
        ..progress.clone()
    }
}

fn activity(activity: &Activity) -> Activity {
    Activity {
        rate: shorten(&activity.rate, AMOUNT),
        eta: shorten(&activity.eta, AMOUNT),
        active_files: activity.active_files.iter().take(ACTIVE_FILES).map(active_file).collect(),
        ..activity.clone()
    }
}

fn check(check: &Check) -> Check {
    Check {
        type_: shorten(&check.type_, CHECK_TYPE),
        ok: check.ok,
        reason: shorten(&check.reason, REASON),
        message: shorten(&check.message, MESSAGE),
    }
}

fn problem(problem: &FileProblem) -> FileProblem {
    FileProblem {
        name: shorten(&problem.name, NAME),
        reason: shorten(&problem.reason, REASON),
        message: shorten(&problem.message, MESSAGE),
    }
}

fn active_file(file: &ActiveFile) -> ActiveFile {
    ActiveFile { name: shorten(&file.name, NAME), ..file.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn long() -> String {
        "ä".repeat(1000)
    }

    fn enormous() -> Report {
        let problem = FileProblem { name: long(), reason: long(), message: long() };
        Report {
            progress: Progress {
                percent: long(),
                checks: vec![Check { type_: long(), ok: false, reason: long(), message: long() }; 9],
                last_error: Some(long()),
                recent_failures: vec![problem.clone(); 9],
                held_back: vec![problem; 9],
                files_seen: 7,
                ..Progress::default()
            },
            activity: Activity {
                rate: long(),
                eta: long(),
                active_files: vec![ActiveFile { name: long(), bytes_sent: 1, size: 2 }; 9],
                ..Activity::default()
            },
        }
    }

    /// Compares every string and list of `value` with the maximum that `schema` gives it, and counts them.
    fn assert_fits(value: &Value, schema: &Value, path: &str) -> usize {
        match value {
            Value::String(text) => {
                let most = schema["maxLength"].as_u64().unwrap_or_else(|| panic!("{path} has no maximum"));
                assert!(text.chars().count() as u64 <= most, "{path}");
                1
            }
            Value::Array(items) => {
                let most = schema["maxItems"].as_u64().unwrap_or_else(|| panic!("{path} has no maximum"));
                assert!(items.len() as u64 == most, "{path} could have {most}");
                1 + items.iter().map(|item| assert_fits(item, &schema["items"], path)).sum::<usize>()
            }
            Value::Object(fields) => {
                fields.iter().map(|(name, field)| assert_fits(field, &schema["properties"][name], &format!("{path}.{name}"))).sum()
            }
            _ => 0,
        }
    }

    #[test]
    fn the_schema_takes_whatever_the_core_reports() {
        let definition = serde_json::to_value(blobferry_crds::manifest::definition()).unwrap();
        let status = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
        let report = fitted(&enormous());
        let progress = assert_fits(&serde_json::to_value(&report.progress).unwrap(), &status["progress"], "progress");
        let activity = assert_fits(&serde_json::to_value(&report.activity).unwrap(), &status["activity"], "activity");
        assert!(progress > 30 && activity > 5, "{progress} {activity}");
        assert_eq!(report.progress.files_seen, 7);
    }

    #[test]
    fn what_fits_is_not_touched() {
        let mut report = enormous();
        report.progress = Progress { last_error: Some("a".repeat(200)), percent: "87%".into(), ..Progress::default() };
        report.activity = Activity { rate: "12.3 MB/s".into(), ..Activity::default() };
        assert_eq!(fitted(&report), report);
    }
}
