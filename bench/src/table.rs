//! Rows of ours beside the ancestor's, with their ratio.

/// Whether more or less of a figure is better.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Better {
    More,
    Less,
}

/// Prints the head of a table that compares with `ancestor`.
pub(crate) fn head(ancestor: &str) {
    println!("| measured | elkfk | {ancestor} | elkfk is |\n| --- | --- | --- | --- |");
}

/// Prints a row; the last column says how many times better ours is (below 1: worse).
pub(crate) fn row(what: &str, unit: &str, ours: f64, theirs: f64, better: Better) {
    let times = match better {
        Better::More => ours / theirs,
        Better::Less => theirs / ours,
    };
    println!("| {what} | {} {unit} | {} {unit} | {times:.2} × |", figure(ours), figure(theirs));
}

fn figure(value: f64) -> String {
    if value >= 1000.0 {
        let digits = format!("{value:.0}");
        let grouped: Vec<_> = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
            .collect();
        return grouped.join(",");
    }
    if value >= 10.0 { format!("{value:.1}") } else { format!("{value:.2}") }
}
