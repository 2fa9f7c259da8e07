"""What kind of work a question asks for."""

import time

import pytest

from lcdoc.workflows.question_kinds import MAX_QUESTION_CHARACTERS, kind_of

QUESTIONS = """
look-up | When does the lease end?
look-up | Who was the first keeper of the lamp?
look-up | How many passengers may the Bittern carry?
look-up | What was the net revenue in fiscal 2021?
look-up | Where was the treaty signed?
look-up | How do I reset the device to its factory settings?
look-up | What is the notice period for tenants?
look-up | How long may personal data be kept?
look-up | How many employees does the company have?
look-up | How many people were killed in the flood of 1893?
look-up | How many years did the siege last?
look-up | Which plant was closed in 2019?
look-up | What percentage of users opted out?
look-up | How often does the night ferry run?
look-up | Who wrote the preface?
look-up | What does "force majeure" mean in this agreement?
look-up | What are the opening hours of the museum?
look-up | Which company audited the accounts?
look-up | Wann endet der Mietvertrag?
look-up | Wie hoch ist die Kündigungsfrist?
look-up | Wie viele Passagiere darf die Fähre befördern?
look-up | Quand le contrat prend-il fin ?
look-up | Quel est le montant du loyer ?
look-up | Did the council approve the budget?
look-up | bell-ringers free travel
list | How many lighthouses were closed after the war?
list | How many times is the fog bell rung in the book?
list | How many ferries are there?
list | How many different suppliers are mentioned?
list | How many letters did she write to her sister?
list | How many chapters in total mention the storm?
list | List all the medicines that must not be taken together.
list | List the dates on which the board met.
list | Name every keeper of the lamp.
list | Please enumerate the obligations of the tenant.
list | Which ferries are named after birds?
list | Which rivers flow through the county?
list | What kinds of penalties does the contract provide for?
list | Give me a list of all persons who signed.
list | Find all passages in which the narrator lies.
list | Who are all the witnesses?
list | Count the ships that were lost.
list | Which subsidiaries were sold in 2020?
list | What are the names of the three ferries?
list | Nenne alle Personen, die den Vertrag unterschrieben haben.
list | Wie viele Schiffe werden im Buch genannt?
list | Zähle die Leuchttürme auf.
list | Combien de fois le phare est-il cité ?
list | Énumérez les obligations du locataire.
list | Quels sont tous les personnages du roman ?
comparison | Compare the two reports' views on inflation.
comparison | What is the difference between a lease and a licence in this contract?
comparison | Which of the ferries carries the most passengers?
comparison | Which company had the higher revenue, Northwind or Contoso?
comparison | Do both policies cover flood damage?
comparison | Is the Otterling faster than the Bittern?
comparison | What do Walden and Moby-Dick have in common?
comparison | How does the 2022 plan differ from the 2021 plan?
comparison | Gross margin 2020 vs 2021
comparison | Vergleiche die beiden Verträge.
comparison | Was ist der Unterschied zwischen Kaution und Bürgschaft?
comparison | Quelle est la différence entre les deux rapports ?
chain | Why did she leave her husband?
chain | How did the letter end up in the hands of the notary?
chain | What led to the closing of the northern plant?
chain | What happened to the captain after the wreck?
chain | What were the consequences of the strike?
chain | How is the miller related to the woman in the tower?
chain | Where was the father of the man who built the bridge born?
chain | In what year was the founder of the firm that owns the quarry born?
chain | Explain how the money reached the account.
chain | What made the council change its mind?
chain | Warum hat sie das Haus verlassen?
chain | Wie kam es zum Brand der Mühle?
chain | Pourquoi le gardien a-t-il quitté l'île ?
theme | What are the main themes of the novel?
theme | How does the narrator's attitude to the sea change?
theme | What is the author's view of progress?
theme | What is the central argument of this paper?
theme | What is the moral of the story?
theme | How are women portrayed?
theme | What kind of person is the captain?
theme | What role does fog play throughout the book?
theme | Welche Themen behandelt der Roman?
theme | Quels sont les thèmes du livre ?
summary | Summarise the report.
summary | Please summarize chapter 3 in two paragraphs.
summary | What is this book about?
summary | Give me a short overview of the contract.
summary | tl;dr
summary | What are the key points of the meeting?
summary | Can you write an executive summary?
summary | What happens in the story?
summary | Summary of section 4
summary | Fasse das Buch zusammen.
summary | Worum geht es in diesem Vertrag?
summary | Résume le premier chapitre.
summary | De quoi parle ce livre ?
look-up | How many Huguenots were there in 1598?
look-up | How large is the fine, other than the costs?
look-up | What motion does the chair put?
list | Which contracts run for more than 5 years?
list | How many wells were drilled by the county?
comparison | Were there more fires in 1871 than in 1872?
comparison | Summarise the differences between the two drafts.
comparison | Compare the themes of the two novels.
chain | What makes the machine stop when it is wet?
theme | How is the sea portrayed in the poem?
summary | Give me the key takeaways.
chain | Where was the teacher of the keeper of Otterby born?
chain | Where was the teacher of the teacher of the keeper of Otterby born?
chain | Who was the keeper's teacher's father?
chain | What is the place of birth of the director of that film?
chain | What is the population of the capital of the country?
chain | Who was the father of Otterby's first keeper?
chain | Wer war der Vater des Lehrers des Wärters von Otterby?
chain | Où est né le professeur du gardien du phare ?
look-up | Where was the keeper of Otterby born?
look-up | What is the date of the end of the lease?
look-up | Who is the mayor of the city of Boston?
look-up | Who is the chairman of the board of directors of the company?
look-up | What is the effective date of the termination of the agreement?
look-up | What is the signature of the secretary of the board?
look-up | What was last year's auditor's fee?
look-up | Was ist das Datum des Endes des Vertrags?
look-up | Quelle est la couleur du moteur de la voiture ?
"""
CASES = [tuple(part.strip() for part in line.split("|")) for line in QUESTIONS.strip().splitlines()]


@pytest.mark.parametrize(("kind", "question"), CASES)
def test_a_question_is_of_its_kind(kind: str, question: str) -> None:
    assert kind_of(question) == kind


def test_the_table_has_enough_of_every_kind() -> None:
    kinds = [kind for kind, _ in CASES]
    assert len(kinds) >= 60
    assert all(kinds.count(kind) >= 8 for kind in set(kinds))


@pytest.mark.parametrize("text", ["", "   ", "?", "\0", "für", "名前は何ですか", "🦭" * 10])
def test_any_string_has_a_kind(text: str) -> None:
    assert kind_of(text) == "look-up"


def test_case_and_line_breaks_do_not_matter() -> None:
    assert kind_of("HOW MANY DIFFERENT\n   SUPPLIERS ARE MENTIONED?") == "list"


@pytest.mark.parametrize(
    "piece",
    [
        "how many a ",
        "which s ",
        "of the a ",
        "name the a ",
        "how did ",
        "all ",
        "more a ",
        "the keeper of ",
        "a's b's ",
        "vater der ",
        " ",
    ],
)
def test_long_texts_take_no_long_time(piece: str) -> None:
    start = time.process_time()
    kind_of(piece * (50 * MAX_QUESTION_CHARACTERS))
    assert time.process_time() - start < 5
