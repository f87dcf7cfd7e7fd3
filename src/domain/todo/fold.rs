//! Texts as they are compared by searches, and by lists that are sorted by title.

use std::borrow::Cow;

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;

/// The text without differences that people don't search for: in Unicode's normalization form NFKC (full-width letters,
/// ligatures, however accents were typed), with Unicode's default case folding (Unicode 17, section 3.13.3: `ß` is `ss`).
/// Accents stay, and so do the Turkish letters: `İ` is `i` with a dot above, and `ı` is only itself.
pub fn folded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        };
    }
    let normalizer = ComposingNormalizerBorrowed::new_nfkc();
    let normalized = normalizer.normalize(text);
    let folded = CaseMapper::new().fold_string(&normalized);
    // Folding takes some letters apart.
    Cow::Owned(normalizer.normalize(&folded).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_width_ligatures_and_how_accents_were_typed_make_no_difference() {
        for (one, other) in [
            ("MILK", "milk"),
            ("Straße", "STRASSE"),
            ("STRAẞE", "strasse"),
            ("ＡＢＣ１２３", "abc123"),
            ("ﬁnal", "Final"),
            ("cafe\u{301}", "CAFÉ"),
            ("ΟΔΟΣ", "οδος"),
            ("οδός", "ΟΔΌΣ"),
            ("Москва", "МОСКВА"),
            ("ｶﾞ", "ガ"),
            ("각", "각"),
            ("K", "k"),
            ("①", "1"),
            ("ǰ", "J\u{30c}"),
            ("\u{1fb3}", "ΑΙ"),
            ("İSTANBUL", "i\u{307}stanbul"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
    }

    #[test]
    fn accents_and_letters_that_are_others_make_one() {
        for (one, other) in [("cafe", "café"), ("I", "ı"), ("İ", "i"), ("か", "が"), ("и", "й"), ("ひ", "ヒ")]
        {
            assert_ne!(folded(one), folded(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_folded_stays_as_it_is() {
        // No letter that folds is beyond these.
        for character in '\0'..='\u{33fff}' {
            let text = character.to_string();
            let once = folded(&text);
            assert_eq!(folded(&once), once, "{character:?}");
        }
    }
}
