// Installed into every page before its own scripts. Puts one object on the window, `tutelage`, with
// what Python calls: begin, observe, describe, settle. It reads the page and sets `data-ref`; it never acts.
(() => {
  const INTERACTIVE_TAGS = new Set(['A', 'BUTTON', 'INPUT', 'SELECT', 'TEXTAREA', 'OPTION', 'SUMMARY']);
  const CONTROLS = 'a, button, input, select, textarea';
  const ARIA = new Set(['tab', 'menuitem', 'button', 'link', 'checkbox', 'radio', 'option', 'slider', 'spinbutton']);
  const MOUSE = ['click', 'mousedown', 'mouseup', 'pointerdown', 'pointerup'];
  const KEYS = ['keydown', 'keypress', 'keyup'];
  const SHAPES = new Set(['rect', 'circle', 'ellipse', 'polygon', 'path', 'line', 'text']);
  const SILENT = new Set(['SCRIPT', 'STYLE', 'TEMPLATE', 'DESC', 'DEFS', 'TITLE']);
  const FRAME_IDS = new Set(['sync-task-cover', 'click-canvas', 'reward-display', 'query']);
  const NAME_LENGTH = 80;
  const VALUE_LENGTH = 600;
  const LONGEST_DELAY = 400;

  // -- what the page listens to and waits for ----------------------------------------------------

  const listeners = new WeakMap();
  const add = EventTarget.prototype.addEventListener;
  const remove = EventTarget.prototype.removeEventListener;
  EventTarget.prototype.addEventListener = function (type, handler, ...rest) {
    const target = this || window;
    if (!listeners.has(target)) listeners.set(target, []);
    listeners.get(target).push({type, handler});
    return add.call(target, type, handler, ...rest);
  };
  EventTarget.prototype.removeEventListener = function (type, handler, ...rest) {
    const target = this || window;
    const kept = (listeners.get(target) || []).filter(l => l.type !== type || l.handler !== handler);
    listeners.set(target, kept);
    return remove.call(target, type, handler, ...rest);
  };

  // Timers that an action starts are waited for; those that timers start (animation loops) are not.
  const pending = new Set();
  const realSetTimeout = window.setTimeout.bind(window);
  const realClearTimeout = window.clearTimeout.bind(window);
  let inTimer = false;
  window.setTimeout = (run, delay, ...rest) => {
    if (typeof run !== 'function') return realSetTimeout(run, delay, ...rest);
    const counts = !inTimer && (delay || 0) <= LONGEST_DELAY;
    const id = realSetTimeout(() => {
      pending.delete(id);
      inTimer = true;
      try { run(...rest); } finally { inTimer = false; }
    }, delay);
    if (counts) pending.add(id);
    return id;
  };
  window.clearTimeout = id => { pending.delete(id); realClearTimeout(id); };

  const busy = () => pending.size > 0 || (window.jQuery && jQuery.timers && jQuery.timers.length > 0) ||
    [...document.images].some(image => !image.complete);

  const listensTo = (el, types) => {
    if (types.some(type => typeof el['on' + type] === 'function')) return true;
    // One native listener of jQuery's stands for many handlers, some of them for descendants.
    if (handlersOf(el, types).some(h => !h.selector)) return true;
    const ofJQuery = window.jQuery && jQuery._data ? jQuery._data(el, 'handle') : null;
    return (listeners.get(el) || []).some(l => types.includes(l.type) && l.handler !== ofJQuery);
  };

  const handlersOf = (el, types) => {
    const events = (window.jQuery && jQuery._data && jQuery._data(el, 'events')) || {};
    return types.flatMap(type => events[type] || []);
  };

  // Selectors through which ancestors listen for their descendants.
  const delegated = el => handlersOf(el, MOUSE).map(h => h.selector).filter(Boolean);

  // -- roles and names ----------------------------------------------------------------------------

  const squeeze = text => (text || '').replace(/\s+/g, ' ').trim();
  // A JSON string that Python, too, reads as one line.
  const quote = text => JSON.stringify(text).replace(/[\u007f\u0085\u2028\u2029]/g,
    end => '\\u' + end.charCodeAt(0).toString(16).padStart(4, '0'));

  const inputRole = el => {
    const byType = {checkbox: 'checkbox', radio: 'radio', button: 'button', submit: 'button', reset: 'button',
      image: 'button', number: 'spinbutton', range: 'slider', date: 'date', time: 'time'};
    return byType[el.type] || (el.getAttribute('role') === 'spinbutton' ? 'spinbutton' : 'textbox');
  };

  const roleOf = el => {
    const aria = el.getAttribute('role');
    const byTag = {TEXTAREA: 'textbox', OPTION: 'option', BUTTON: 'button', IMG: 'image', LABEL: 'label',
      LI: 'listitem', TH: 'cell', TD: 'cell'};
    if (el.tagName === 'INPUT') return inputRole(el);
    if (el.tagName === 'SELECT') return el.multiple || el.size > 1 ? 'listbox' : 'combobox';
    if (byTag[el.tagName] && aria !== 'tab' && aria !== 'menuitem') return byTag[el.tagName];
    if (ARIA.has(aria)) return aria;
    if (el.classList.contains('ui-slider-handle')) return 'slider';
    if (el.tagName === 'A') return 'link';
    if (el instanceof SVGElement && SHAPES.has(el.tagName)) return 'shape';
    return /^H[1-6]$/.test(el.tagName) ? 'heading' : 'generic';
  };

  const labelOf = el => {
    const around = el.closest('label');
    if (around) return squeeze(around.innerText);
    const beside = el.id && document.querySelector(`label[for="${CSS.escape(el.id)}"]`);
    if (beside) return squeeze(beside.innerText);
    const next = el.nextSibling;
    if ((el.type === 'checkbox' || el.type === 'radio') && next && next.nodeType === Node.TEXT_NODE)
      return squeeze(next.textContent);
    return el.placeholder || captionBefore(el);
  };

  // Many pages put a field's caption before it without saying so: a few words, right before the field
  // or before the box that holds nothing else.
  const captionBefore = el => {
    for (let node = el; node && node.id !== 'area'; node = node.parentElement) {
      let before = node.previousSibling;
      while (before && (before.tagName === 'BR' || !squeeze(before.textContent))) {
        if (before.nodeType === Node.ELEMENT_NODE && (isControl(before) || before.querySelector(CONTROLS))) return '';
        before = before.previousSibling;
      }
      if (!before) continue;
      const text = squeeze(before.textContent);
      const short = text.length <= 30 && text.split(' ').length <= 3 && /\p{L}/u.test(text);
      return short && !(before.nodeType === Node.ELEMENT_NODE && (isControl(before) || before.querySelector(CONTROLS)))
        ? text : '';
    }
    return '';
  };

  const shapeName = el => {
    const style = getComputedStyle(el);
    const colour = el.getAttribute('fill') || style.fill;
    const text = el.tagName === 'text' ? ' ' + quote(squeeze(el.textContent)).slice(1, -1) : '';
    return `${colour} ${el.tagName}${text}`;
  };

  const nameOf = (el, role) => {
    let name = el.getAttribute('aria-label') || '';
    if (name) return name;
    if (role === 'shape') return shapeName(el);
    if (role === 'button' && el.tagName === 'INPUT') return el.value;
    if (['INPUT', 'TEXTAREA', 'SELECT'].includes(el.tagName)) return labelOf(el);
    name = squeeze(el.innerText === undefined ? el.textContent : el.innerText);
    return name || el.getAttribute('title') || el.getAttribute('alt') || '';
  };

  // For what bears no text, e.g. an icon or a coloured box: its class, and its colour if it was given one.
  const looksOf = el => {
    const words = typeof el.className === 'string' ? squeeze(el.className).split(' ') : [];
    const telling = words.filter(word => !/^ui-(button|corner|state|widget)/.test(word)).join(' ');
    return squeeze(`${(telling || el.id).slice(0, 40)} ${(el.style && el.style.backgroundColor) || ''}`);
  };

  // -- the observation ----------------------------------------------------------------------------

  const hidden = style => style.display === 'none' || style.visibility === 'hidden';
  const points = el => getComputedStyle(el).cursor === 'pointer';

  const isControl = el => INTERACTIVE_TAGS.has(el.tagName) || ARIA.has(el.getAttribute('role'));

  const canActOn = (el, selectors) => {
    if (el.id === 'area' || el.id === 'wrap') return false;
    if (el.tagName === 'A' && el.parentElement.getAttribute('role') === 'tab') return false;  // the tab is listed
    if (isControl(el) || (el.tabIndex >= 0 && listensTo(el, KEYS) && !el.firstElementChild)) return true;
    const reacts = listensTo(el, MOUSE) || selectors.some(selector => el.matches(selector)) ||
      (points(el) && !(el.parentElement && points(el.parentElement)));
    // A wrapper that says just what the control in it says would only be listed twice.
    return reacts && ![...el.children].some(child => isControl(child) && squeeze(child.innerText) === squeeze(el.innerText));
  };

  // An image takes no room until it is loaded, but it is there.
  const takesNoRoom = (el, style, box) =>
    (box.width === 0 || box.height === 0 || (box.width <= 1 && box.height <= 1)) && el.tagName !== 'OPTION' &&
    style.display !== 'contents' && !style.content.startsWith('url(');

  const isPlainCell = el =>
    (el.tagName === 'TD' || el.tagName === 'TH') && squeeze(el.innerText) && !el.querySelector('input,select,button,a,textarea');

  const isField = el => ['INPUT', 'SELECT', 'TEXTAREA'].includes(el.tagName);

  const states = (el, role) => {
    let out = '';
    const expanded = el.getAttribute('aria-expanded');
    if (['textbox', 'spinbutton', 'date', 'time', 'combobox', 'slider'].includes(role)) {
      let value = 'value' in el ? el.value : el.getAttribute('aria-valuenow');
      if (el.tagName === 'SELECT') value = el.selectedIndex < 0 ? '' : squeeze(el.options[el.selectedIndex].text);
      if (value !== null) out += ` value=${quote(String(value).slice(0, VALUE_LENGTH))}`;
    }
    if (role === 'checkbox' || role === 'radio') out += ` checked=${Boolean(el.checked)}`;
    if (role === 'option') out += ` selected=${Boolean(el.selected)}`;
    if (role === 'tab') out += ` selected=${el.getAttribute('aria-selected') === 'true'}`;
    if (expanded !== null) out += ` expanded=${expanded === 'true'}`;
    if (document.activeElement === el) out += ' focused';
    return out;
  };

  const observe = () => {
    document.querySelectorAll('[data-ref]').forEach(el => el.removeAttribute('data-ref'));
    const lines = [];
    let count = 0;

    const refer = (el, depth) => {
      const ref = 'r' + ++count;
      el.setAttribute('data-ref', ref);
      let role = roleOf(el);
      let name = nameOf(el, role).slice(0, NAME_LENGTH);
      if (!name && ['generic', 'button', 'link', 'image'].includes(role)) {
        if (role === 'generic' && (getComputedStyle(el).backgroundImage || 'none') !== 'none') role = 'image';
        name = looksOf(el);
      }
      // A field's caption is its name and need not be said twice.
      if (isField(el) && lines.length && lines.at(-1).trim() === 'text ' + quote(name)) lines.pop();
      lines.push('  '.repeat(depth) + `[${ref}] ${role}` + (name ? ' ' + quote(name) : '') + states(el, role));
      return name;
    };

    const walk = (parent, depth, said, selectors) => {
      if (parent.tagName === 'TEXTAREA') return;
      selectors = [...selectors, ...delegated(parent)];
      for (const node of parent.childNodes) {
        if (node.nodeType === Node.TEXT_NODE) {
          const text = squeeze(node.textContent);
          const beside = node.previousElementSibling || (node.parentElement.tagName === 'LABEL' && node.parentElement.querySelector('input'));
          if (text && beside && isField(beside) && labelOf(beside) === text) continue;
          if (text && !said.includes(text)) lines.push('  '.repeat(depth) + 'text ' + quote(text));
          continue;
        }
        if (node.nodeType !== Node.ELEMENT_NODE || SILENT.has(node.tagName.toUpperCase())) continue;
        if (FRAME_IDS.has(node.id)) continue;
        const style = getComputedStyle(node);
        if (hidden(style)) continue;
        const empty = takesNoRoom(node, style, node.getBoundingClientRect());
        if (empty && style.overflow !== 'visible') continue;
        if (isPlainCell(node)) refer(node, depth);
        else if (!empty && canActOn(node, selectors)) walk(node, depth + 1, refer(node, depth), selectors);
        else walk(node, depth, said, selectors);
      }
    };

    walk(document.body, 0, '', []);
    return lines.join('\n');
  };

  // -- called from Python -------------------------------------------------------------------------

  const sleep = ms => new Promise(done => realSetTimeout(done, ms));

  const settle = async cap => {
    const until = performance.now() + cap;
    while (busy() && performance.now() < until) await sleep(5);
  };

  // Whether a field of this type takes the text; dates, times and numbers want a form of their own.
  const accepts = (type, content) => {
    if (!['date', 'time', 'month', 'week', 'datetime-local', 'number'].includes(type)) return true;
    const probe = document.createElement('input');
    probe.type = type;
    probe.value = content;
    return probe.value === content;
  };

  // Whether a click at the middle of the element (of its first line, if it runs over several) would hit another.
  const covered = el => {
    el.scrollIntoViewIfNeeded();
    const box = el.getClientRects()[0];
    if (!box || box.width === 0 || box.height === 0) return false;
    const hit = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
    const label = hit && hit.closest('label');
    return Boolean(hit) && !el.contains(hit) && !(label && label.control === el);
  };

  const goal = () => {
    const utterance = core.getUtterance();
    return squeeze(typeof utterance === 'string' ? utterance : utterance.utterance);
  };

  const state = () => ({observation: observe(), done: WOB_DONE_GLOBAL, reward: WOB_RAW_REWARD_GLOBAL});

  window.tutelage = {
    // End what is running, seed, start, and wait until the page has put its goal up.
    begin: async (seed, cap) => {
      pending.clear();
      core.EPISODE_MAX_TIME = 1e9;
      if (!WOB_DONE_GLOBAL && getComputedStyle(core.cover_div).display === 'none') core.endEpisode(0);
      if (document.activeElement) document.activeElement.blur();  // the last episode's focus
      Math.seedrandom(seed);
      core.startEpisodeReal();
      while (!WOB_TASK_READY) await sleep(5);
      await settle(cap);
      for (const until = performance.now() + 2000; !goal() && performance.now() < until;) await sleep(5);
      // jQuery UI's date picker keeps month and selection for as long as the page lives.
      const stale = Boolean(document.querySelector('.hasDatepicker'));
      return {goal: goal(), stale, ...state()};
    },

    read: async cap => { await settle(cap); return state(); },

    // What Python has to know of an element to act on it; null if it is gone.
    describe: (ref, content) => {
      const el = document.querySelector(`[data-ref="${ref}"]`);
      if (!el) return null;
      const list = el.tagName === 'OPTION' ? el.closest('select') : el.tagName === 'SELECT' ? el : null;
      return {
        tag: el.tagName,
        type: el.type || '',
        value: 'value' in el ? el.value : '',
        editable: el.tagName === 'TEXTAREA' || el.isContentEditable || (el.tagName === 'INPUT' &&
          !['button', 'submit', 'reset', 'image', 'checkbox', 'radio', 'file', 'color', 'range'].includes(el.type)),
        covered: !list && covered(el),
        disabled: Boolean(el.disabled),
        readOnly: Boolean(el.readOnly),
        keys: listensTo(el, KEYS),
        accepts: !el.type || accepts(el.type, content),
        opens: el.getAttribute('aria-haspopup') === 'true',
        options: list ? [...list.options].map(option => squeeze(option.text)) : null,
        index: el.tagName === 'OPTION' ? el.index : null,
        multiple: Boolean(list && list.multiple),
        dropdown: Boolean(list && !list.multiple && list.size <= 1),
      };
    },
  };
})();
