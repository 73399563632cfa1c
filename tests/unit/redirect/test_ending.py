from micromegas_jupyter.auth.flows.pages import LoginOutcome, failure_page, success_page


def test_a_sign_in_that_went_well_is_told_with_its_persons_name() -> None:
    assert LoginOutcome(is_signed_in=True, who="Alice").page() == success_page(who="Alice")


def test_a_sign_in_whose_tokens_name_nobody_is_told_without_one() -> None:
    assert LoginOutcome(is_signed_in=True).page() == success_page()


def test_a_sign_in_that_failed_is_told_with_its_remedy() -> None:
    ending = LoginOutcome(is_signed_in=False, what="It was refused.", remedy="Ask somebody.")

    assert ending.page() == failure_page(what="It was refused.", remedy="Ask somebody.")
