//! What square brackets mean to AUTOMATIC1111's WebUI beside less weight: a prompt that changes while steps are made.

/// Whether brackets in `prompt` say that it is to change at a step, as in `[cat:dog:0.5]`, and whether from step to step, as in `[cat|dog]`.
pub(super) fn edits(prompt: &str) -> [bool; 2] {
    let (mut at_a_step, mut each_step) = (false, false);
    // What each open bracket holds, but for the brackets in it.
    let mut open: Vec<(char, String)> = Vec::new();
    let mut characters = prompt.chars();
    while let Some(c) = characters.next() {
        match (c, open.last_mut()) {
            ('\\', _) => {
                characters.next();
            }
            ('(' | '[', _) => open.push((c, String::new())),
            (')', Some(('(', _))) => {
                open.pop();
            }
            (']', Some(('[', held))) => {
                at_a_step |= ends_in_number(held);
                each_step |= held.contains('|');
                open.pop();
            }
            (c, Some((_, held))) => held.push(c),
            (_, None) => {}
        }
    }
    [at_a_step, each_step]
}

/// Whether `text` ends in a colon and a number.
pub(super) fn ends_in_number(text: &str) -> bool {
    let Some((_, number)) = text.rsplit_once(':') else { return false };
    let digits = number.trim().trim_start_matches(['+', '-']);
    digits.parse::<f64>().is_ok() && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editing_is_a_number_at_the_end_and_alternation_a_bar() {
        for (prompt, found) in [
            ("[cat:dog:0.5]", [true, false]),
            ("[cat:1.3]", [true, false]),
            ("[cat::5]", [true, false]),
            ("[cat: dog : -1 ]", [true, false]),
            ("[a (b:1.2):3]", [true, false]),
            ("[cat|dog|]", [false, true]),
            ("[[a|b]:c:3]", [true, true]),
            ("[cat] [cat:dog] [(cat:1.5)]", [false, false]),
            (r"\[b:c:0.5\] cat|dog a [b|c", [false, false]),
            ("(a|b:0.5)", [false, false]),
            ("[a:1e3]", [false, false]),
        ] {
            assert_eq!(edits(prompt), found, "{prompt}");
        }
    }
}
