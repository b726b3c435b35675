//! What the imaginary GPU wrote down.

use std::collections::BTreeMap;

/// How often each thing was done, by what the log calls it.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Lines in the order of calls.
pub(crate) struct Log(Vec<String>);

impl Log {
    pub(crate) fn read(text: &str) -> Self {
        Self(text.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// What a real GPU would refuse, or latentd means never to do.
    pub(crate) fn faults(&self) -> Vec<&str> {
        self.0.iter().filter_map(|line| line.strip_prefix("!! ")).collect()
    }

    /// There are no faults.
    pub(crate) fn assert_sound(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// Whether a line contains `words`.
    pub(crate) fn tells(&self, words: &str) -> bool {
        self.0.iter().any(|line| line.contains(words))
    }

    /// What capture `number` wrote down.
    pub(crate) fn capture(&self, number: usize) -> Option<Counts> {
        let begin = self.0.iter().position(|line| line.starts_with(&format!("== capture {number}: ")))?;
        let counted =
            |line: &String| line.split_once('\t').map(|(count, what)| (what.to_owned(), count.parse().unwrap()));
        Some(self.0[begin + 1..].iter().map_while(counted).collect())
    }

    /// How many captures there were.
    pub(crate) fn captures(&self) -> usize {
        self.0.iter().filter(|line| line.starts_with("== capture ")).count()
    }

    /// How often a stream was given a graph.
    pub(crate) fn replays(&self) -> usize {
        self.0.iter().filter(|line| line.contains(": graph ")).count()
    }

    /// The stream that is given graphs, and that which brings pictures back: more than a number each.
    pub(crate) fn streams(&self) -> (u32, u32) {
        let stream = |line: &String| line.strip_prefix("stream ")?.split(':').next()?.parse().ok();
        let evaluates = self.0.iter().filter(|line| line.contains(": graph ")).find_map(stream).unwrap();
        let print = self.prints().next().unwrap();
        (evaluates, stream(&self.0[print]).unwrap())
    }

    /// CUDA's priority of a stream: lower numbers go first.
    pub(crate) fn priority(&self, stream: u32) -> i32 {
        let start = format!("-- stream {stream} has priority ");
        self.0.iter().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    }

    /// Whether the stream of evaluations was given more after a picture was begun on another, and before anybody waited for that.
    pub(crate) fn evaluates_while_decoding(&self) -> bool {
        let (evaluates, decodes) = self.streams();
        let more = format!("stream {evaluates}: ");
        self.prints().any(|print| {
            let recorded = format!("stream {decodes} records event ");
            let after = &self.0[print..];
            let Some((at, event)) =
                after.iter().enumerate().find_map(|(at, line)| Some((at, line.strip_prefix(&recorded)?)))
            else {
                return false;
            };
            let ends =
                [format!("the host waits for event {event}"), format!("the host asks for event {event}: passed")];
            after[at..].iter().take_while(|line| !ends.contains(line)).any(|line| line.starts_with(&more))
        })
    }

    /// Whether the host waited for a number from the GPU after the first capture, when jobs are drawn.
    pub(crate) fn reads_numbers_late(&self) -> bool {
        let drawing = self.0.iter().skip_while(|line| !line.starts_with("== capture "));
        drawing.into_iter().any(|line| line.ends_with("to read a number"))
    }

    /// Where pictures are copied to the host.
    fn prints(&self) -> impl Iterator<Item = usize> {
        let read = |line: &String| line.split_once(": copy device to host ")?.1.parse::<usize>().ok();
        self.0.iter().enumerate().filter(move |(_, line)| read(line).is_some_and(|bytes| bytes > 8)).map(|(at, _)| at)
    }
}
