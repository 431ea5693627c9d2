//! Selection of worlds: few, but with each pair of two dimensions' values at least once.

/// Rows of values, one per dimension of the given size, that contain each pair of values of two dimensions. Greedy:
/// each row starts with a missing pair, and takes for each further dimension the value that adds most.
pub(crate) fn all_pairs(sizes: &[usize], seed: u64) -> Vec<Vec<usize>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut missing = pairs(sizes);
    let mut rows = Vec::new();
    while let Some(&((first, a), (second, b))) = missing.first() {
        let mut row: Vec<Option<usize>> = vec![None; sizes.len()];
        row[first] = Some(a);
        row[second] = Some(b);
        let mut order: Vec<usize> = (0..sizes.len()).filter(|place| row[*place].is_none()).collect();
        random.shuffle(&mut order);
        for place in order {
            let mut values: Vec<usize> = (0..sizes[place]).collect();
            random.shuffle(&mut values);
            let gain = |value: &usize| missing.iter().filter(|pair| adds(&row, place, *value, **pair)).count();
            let best = values.iter().copied().max_by_key(gain);
            row[place] = best;
        }
        let row: Vec<usize> = row.into_iter().flatten().collect();
        missing.retain(|((first, a), (second, b))| row[*first] != *a || row[*second] != *b);
        rows.push(row);
    }
    rows
}

type Pair = ((usize, usize), (usize, usize));

/// All pairs of a dimension's value with another's.
fn pairs(sizes: &[usize]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for second in 0..sizes.len() {
        for first in 0..second {
            for a in 0..sizes[first] {
                pairs.extend((0..sizes[second]).map(|b| ((first, a), (second, b))));
            }
        }
    }
    pairs
}

/// Whether a row contains the pair if this dimension has this value.
fn adds(row: &[Option<usize>], place: usize, value: usize, ((first, a), (second, b)): Pair) -> bool {
    let has = |dimension: usize, wanted: usize| {
        if dimension == place { value == wanted } else { row[dimension] == Some(wanted) }
    };
    (first == place || second == place) && has(first, a) && has(second, b)
}

#[test]
fn every_pair_of_values_occurs() {
    for seed in 0..20 {
        let sizes = [5, 3, 4, 3, 3, 3];
        let rows = all_pairs(&sizes, seed);
        let found = |((first, a), (second, b)): &Pair| {
            rows.iter().any(|row: &Vec<usize>| row[*first] == *a && row[*second] == *b)
        };
        assert!(pairs(&sizes).iter().all(found));
        assert!(rows.len() <= 30, "{} rows for at least 20", rows.len());
    }
}
