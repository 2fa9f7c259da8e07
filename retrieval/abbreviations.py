"""Words that are written with a full stop, and what a full stop after each says about the end of a sentence.

The lists are short on purpose: an abbreviation that is also a common word ("in.", "Me.", "Pa.") costs more missed
sentence ends than it saves. Keys carry no final full stop and are compared with their case.
"""

from __future__ import annotations

from typing import Final, Literal

Habit = Literal["title", "number", "code", "either", "closing"]
"""How an abbreviation behaves before a capital or a digit.

- `title`: something must follow ("Mr.", "e.g."), so it never ends a sentence.
- `number`: ends one unless a number, or a letter that serves as one, follows ("Fig. 5", "Sec. IV", "Sched. B").
- `code`: ends one unless a number or a code follows ("No. EU7140", but "No. I left.").
- `either`: ends one only before a word that usually starts sentences ("Acme Inc. The", but "Acme Inc. Bonds").
- `closing`: ends one before any capital but a weekday or a time zone ("5 p.m. They", but "5 p.m. Monday").
"""

_WORDS: Final[dict[Habit, str]] = {
    "title": """
Mr Mrs Ms Mx Messrs Mme Mmes Mlle Mgr Dr Drs Prof Rev Hon Fr Sen Sens Rep Reps Gen Col Maj Capt Cpt Cmdr Cdr Lt Sgt Cpl
Adm Gov Pres Supt Insp Brig Amb Atty Asst Mt Mts Ft Pvt Sra Srta Dra Hr Herr Sig Dott Don Rs
vs Vs v e.g i.e eg cf Cf viz approx Approx ca op incl excl attn Attn tel Tel z.B d.h u.a s.o vgl bzw ggf
""",
    "number": """
Nos nos Sched Nr nr núm Núm Fig Figs fig figs Eq Eqs eq eqs Sec Secs Sect Art Arts art arts Ch ch Chap chap Vol Vols
vol vols p pp P Pp pg pag pág para paras Para Pt pt Ex Exh Tab Ref Refs App Bd Abs Rn Ziff Cl Reg Regs Rul n nn l ll
b c d fl r ext Ext Sun Sat § §§ cap Cap lib Ser ser Iss iss
""",
    "code": "No no N° n°",
    "either": """
Inc Incs Corp Corps Ltd Co Cos Bros Assn Assoc Univ Dept Div Mfg Intl Natl Govt Plc Pty Jr Sr Esq St Ste Ave Blvd
Rd Hwy Pkwy Sq Bldg al ed eds trans repr cit ibid Ibid seq id Id est Est
Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mon Tue Tues Wed Thu Thur Thurs Fri
Cir Ct Dist Stat Cong Sess Supp Treas Fed Civ Crim Evid Proc Cal Ala Ariz Ark Calif Colo Conn Del Fla Ga Ill Ind Kan Ky
Mass Md Mich Minn Miss Mont Neb Nev Okla Tenn Tex Va Vt Wash Wis Wyo
ft lb lbs oz sq hr hrs min mins sec yr yrs max avg cu mph dept spp sp
""",
    "closing": "etc usw a.m p.m A.M P.M",
}

HABITS: Final[dict[str, Habit]] = {word: habit for habit, words in _WORDS.items() for word in words.split()}
"""Abbreviation to habit."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STARTERS: Final[frozenset[str]] = _words("""
The A An This That These Those It Its He She They We I You His Her Their Our My Your There Here In On At By For From
With As If When While Where Who What Why How Which After Before Since Until During Because Although Though However But
And Or So Yet Nor Not Yes All Any Both Each Every Some Most Many Much More Other Others Another Such Also Then Thus
Therefore Hence Moreover Furthermore Additionally Accordingly Consequently Meanwhile Nevertheless Similarly Finally
Under Upon Without Within Between Among Through Once Only Even Just Now Today Despite Based See Let Are Is Was Were Do
Does Did Has Have Had Can Could Would Should To Unless Whether Nothing Everyone Someone Nobody Several Few Instead
Mr Mrs Ms Dr Prof Total Except Perhaps Maybe Overall Excluding Including Pursuant Prior Following Subject
""")
"""Words that, written with a capital after an ambiguous full stop, show that a sentence begins. No names among them."""

AFTER_TIME: Final[frozenset[str]] = _words("""
Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mon Tue Tues Wed Thu Thurs Fri Sat Sun
Eastern Central Mountain Pacific Atlantic Greenwich Local EST EDT CST CDT MST MDT PST PDT ET CT MT PT GMT UTC BST CET
CEST IST JST New London Tokyo Hong
""")
"""Words that may follow "5 p.m." within a sentence."""

MONTHS: Final[frozenset[str]] = _words("""
Januar Jänner Februar März April Mai Juni Juli August September Oktober November Dezember
Jan Feb Mär Apr Jun Jul Aug Sep Okt Nov Dez
""")
"""German months, which follow an ordinal with a full stop ("am 3. Oktober")."""

NAMES_WITH_BANG: Final[frozenset[str]] = frozenset({"Yahoo", "Yum", "Jeopardy"})
"""Names that end in an exclamation mark."""

OPEN_WORDS: Final[frozenset[str]] = _words("""
a an the and or nor but of in on at to for by with from as than into onto upon over under between among against about
that which who whose whom is are was were be been being has have had will would shall should may might must can could
our its their his her your my this these those no not if when while where because such per via including
""")
"""Words that no heading, table row or paragraph ends with: after them a line break is only a wrap."""

TAKES_LETTER: Final[frozenset[str]] = _words("""
vitamin vitamins hepatitis influenza type class group grade plan option part phase series schedule exhibit appendix
annex point step section table figure panel box hospital tier stage team unit zone
""")
"""Words before a single capital letter that is a label and not an initial."""
