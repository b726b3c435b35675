//! Webhooks, and when a job is forgotten.

use super::*;

#[test]
fn what_is_over_is_forgotten_once_its_hook_was_told() {
    let rules = Rules::default();
    let mut job = held("w1");
    job.webhook = Some(JobWebhook::new("https://a.example", Vec::new()));
    job.expires = at(20);
    assert_eq!(job.tick(&rules, at(20)), Transition::Stop("w1".into()));
    assert_eq!((job.state, job.hidden, job.is_disposable()), (JobState::TimedOut, true, false));
    assert_eq!(job.due(&rules), at(20));
    let retry = rules.webhooks;
    for (seconds, went) in [(20, failed()), (30, failed()), (40, WebhookOutcome::Accepted)] {
        let hook = job.webhook.as_mut().unwrap();
        let mut begins = |second| hook.begin_attempt(&retry, at(second));
        assert!(!begins(seconds - 1) && begins(seconds) && !begins(seconds));
        assert_eq!(hook.record_attempt(1, &went, &retry, at(seconds)), went == WebhookOutcome::Accepted);
    }
    assert!(job.is_disposable());
    let mut kept = held("w1");
    assert_eq!(kept.finish(done("w1"), at(2)), Transition::Changed);
    assert_eq!(kept.due(&rules), at(2) + kept.retention);
    assert_eq!((kept.tick(&rules, at(2) + kept.retention), kept.is_disposable()), (Transition::Changed, true));
}

#[test]
fn a_hook_is_tried_three_times_and_tells_each_new_end() {
    let mut job = held("w1");
    job.webhook = Some(JobWebhook::new("https://a.example", Vec::new()));
    assert_eq!(job.finish(Finish { error: Some("e".into()), ..done("w1") }, at(2)), Transition::Changed);
    let retry = WebhookRetry::default();
    let hook = job.webhook.as_mut().unwrap();
    assert!(hook.begin_attempt(&retry, at(2)));
    assert_eq!((hook.record_attempt(1, &failed(), &retry, at(3)), hook.due), (false, Some(at(13))));
    assert!(hook.begin_attempt(&retry, at(13)), "and its teller dies");
    assert!(!hook.begin_attempt(&retry, at(72)) && hook.begin_attempt(&retry, at(73)));
    assert!(hook.record_attempt(1, &failed(), &retry, at(74)), "given up");
    assert_eq!(job.retry(at(80)), Transition::Changed);
    assert_eq!(job.cancel(at(81)), Transition::Changed);
    let hook = job.webhook.as_mut().unwrap();
    assert_eq!((hook.message, hook.due, hook.tries), (2, Some(at(81)), 0));
    assert!(hook.record_attempt(1, &WebhookOutcome::Accepted, &retry, at(82)), "news of the first message");
    assert_eq!(hook.due, Some(at(81)), "say nothing of the second");
    hook.postpone(at(100));
    assert_eq!((hook.due, hook.tries), (Some(at(100)), 0), "it did not count");
    assert!(hook.begin_attempt(&retry, at(100)));
    assert!(
        hook.record_attempt(2, &WebhookOutcome::Refused("private".into()), &retry, at(101)),
        "no other try will help"
    );
    let log: Vec<_> = hook.log.iter().map(|told| (told.message, told.at, told.error.as_deref())).collect();
    let first = [(1, at(3), Some("it is away")), (1, at(74), Some("it is away"))];
    assert_eq!(log, [&first[..], &[(1, at(82), None), (2, at(101), Some("private"))]].concat());
}

fn failed() -> WebhookOutcome {
    WebhookOutcome::Failed("it is away".into())
}
