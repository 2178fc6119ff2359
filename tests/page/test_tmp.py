import json
from tests.page.conftest import *
def test_tmp(open_tab, gateway):
    for i in range(4):
        page=open_tab()
        page.add_init_script("""new MutationObserver(()=>{ for (const s of ['.example','#faq .question']) if(!window['t'+s] && document.querySelector(s)) window['t'+s]=performance.now()}).observe(document,{childList:true,subtree:true})""")
        page.goto(gateway.base_url)
        expect(page.locator("#faq .question").first).to_be_visible()
        print(page.evaluate("[window['t.example'], window['t#faq .question'], performance.getEntriesByType('paint').map(e=>[e.name,e.startTime])]"))
